package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// version is the release's, set when it is built.
var version = "dev"

// options are the flags of all commands, kubectl's own among them.
type options struct {
	genericiooptions.IOStreams
	kube              *genericclioptions.ConfigFlags
	driverName        string
	operatorNamespace string
	allNamespaces     bool
	output            string
	noHeaders         bool
}

func newCommand(streams genericiooptions.IOStreams) *cobra.Command {
	o := &options{IOStreams: streams, kube: genericclioptions.NewConfigFlags(true)}
	root := &cobra.Command{
		Use:          "kubectl-rds",
		Annotations:  map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl rds"},
		Short:        "Live migrations and volumes of RDS arrays",
		Long:         "Live migrations and volumes of RDS arrays, as the operator sees them. Nothing is ever written.",
		Version:      version,
		SilenceUsage: true,
	}
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	flags := root.PersistentFlags()
	o.kube.AddFlags(flags)
	flags.StringVar(&o.driverName, "driver-name", "rds.csi.srvlab.io", "name of the CSI driver")
	flags.StringVar(&o.operatorNamespace, "operator-namespace", "rds-csi", "where the operator is, and the Secrets with the keys of the arrays")
	root.AddCommand(newMigrations(o), newVolumes(o), newExplain(o))
	return root
}

// addTableFlags adds the flags of a command that prints a table.
func (o *options) addTableFlags(c *cobra.Command) {
	c.Flags().BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "of all namespaces")
	c.Flags().StringVarP(&o.output, "output", "o", "", "wide, json or yaml")
	c.Flags().BoolVar(&o.noHeaders, "no-headers", false, "print no headers")
}

// namespace is the one that is looked at; empty: all.
func (o *options) namespace() (string, error) {
	if o.allNamespaces {
		return "", nil
	}
	namespace, _, err := o.kube.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", fmt.Errorf("find the namespace: %w", err)
	}
	return namespace, nil
}

// nothing says that a table would be empty.
func (o *options) nothing(what, namespace string) {
	where := "in any namespace"
	if namespace != "" {
		where = "in namespace " + namespace
	}
	fmt.Fprintf(o.ErrOut, "No %s found %s.\n", what, where)
}
