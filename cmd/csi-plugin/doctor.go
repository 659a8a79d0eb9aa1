package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"

	"git.srvlab.io/whiskey/rds-csi-operator/csi/nvme"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/doctor"
	"git.srvlab.io/whiskey/rds-csi-operator/rds/routeros"
)

// The exit codes of `csi-plugin doctor`.
const (
	doctorHealthy = 0 // no check failed
	doctorFailed  = 1
	doctorUnable  = 2 // the array could not be examined, or not be left clean
)

const doctorUsage = `csi-plugin doctor checks on an array what this driver assumes about it. Without --scratch it changes nothing.
Exit code: 0 no check failed, 1 some did, 2 it could not be examined or something it made is left.
`

// runDoctor examines an array as the arguments say and prints a report.
func runDoctor(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("csi-plugin doctor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, doctorUsage)
		flags.PrintDefaults()
	}
	file := flags.String("arrays-file", "/etc/rds-csi/arrays.yaml", "YAML file that lists the arrays")
	name := flags.String("array", "", "which of them; empty: the default one")
	scratch := flags.Bool("scratch", false, "make and remove a small volume")
	node := flags.Bool("node", false, "connect this machine to that volume as well; needs --scratch, root and nvme-cli")
	output := flags.String("output", "text", "text or json")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return doctorHealthy
		}
		return doctorUnable
	}
	print := map[string]func(io.Writer, doctor.Report) error{"text": doctor.Text, "json": doctor.JSON}[*output]
	config, err := chooseArray(*file, *name)
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case print == nil:
		err = fmt.Errorf("--output is %q; it is text or json", *output)
	case *node && !*scratch:
		err = errors.New("--node needs --scratch: it connects to the volume that is made")
	}
	options := doctor.Options{Scratch: *scratch}
	if err == nil && *node {
		options.Host, err = newDoctorHost(ctx, config, nvme.LookupHere)
	}
	if err != nil {
		fmt.Fprintln(stderr, "csi-plugin doctor:", err)
		return doctorUnable
	}
	report, err := doctor.Examine(ctx, config, options)
	if len(report.Findings) > 0 {
		err = errors.Join(err, print(stdout, report))
	}
	if err != nil {
		fmt.Fprintln(stderr, "csi-plugin doctor:", err)
		return doctorUnable
	}
	if report.Count(doctor.Fail) > 0 {
		return doctorFailed
	}
	return doctorHealthy
}

// chooseArray reads the configuration of one array; an empty name is the default's.
func chooseArray(file, name string) (routeros.Config, error) {
	configs, err := routeros.LoadArrays(file)
	if err != nil {
		return routeros.Config{}, err
	}
	for _, c := range configs {
		if c.Name == name || name == "" && c.Default {
			return c, nil
		}
	}
	return routeros.Config{}, fmt.Errorf("%s lists no array %q", file, name)
}
