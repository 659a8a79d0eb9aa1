package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
)

// apiVersion marks what -o json prints: reports of this command, not objects of the
// cluster.
const apiVersion = "cli.rds.srvlab.io/v1alpha1"

// column is one of a table.
type column[T any] struct {
	name string
	wide bool // shown by -o wide only
	cell func(T) string
}

// printRows prints a table, or all that is known as JSON or YAML.
func printRows[T any](o *options, kind string, columns []column[T], rows []T) error {
	if !o.structured() {
		printer, err := o.tablePrinter()
		if err != nil {
			return err
		}
		return printer.PrintObj(tableOf(columns, rows), o.Out)
	}
	printer, err := genericclioptions.NewJSONYamlPrintFlags().ToPrinter(o.output)
	if err != nil {
		return err
	}
	list, err := listOf(kind, rows)
	if err != nil {
		return err
	}
	return printer.PrintObj(list, o.Out)
}

func (o *options) structured() bool { return o.output != "" && o.output != "wide" }

// tablePrinter prints headers once, with the first of its tables.
func (o *options) tablePrinter() (printers.ResourcePrinter, error) {
	if o.structured() {
		return nil, fmt.Errorf("-o %s prints no table", o.output)
	}
	return printers.NewTablePrinter(printers.PrintOptions{Wide: o.output == "wide", NoHeaders: o.noHeaders}), nil
}

func tableOf[T any](columns []column[T], rows []T) *metav1.Table {
	table := &metav1.Table{}
	for _, c := range columns {
		definition := metav1.TableColumnDefinition{Name: c.name, Type: "string"}
		if c.wide {
			definition.Priority = 1
		}
		table.ColumnDefinitions = append(table.ColumnDefinitions, definition)
	}
	for _, row := range rows {
		var cells []any
		for _, c := range columns {
			text := c.cell(row)
			if text == "" {
				text = "-"
			}
			cells = append(cells, text)
		}
		table.Rows = append(table.Rows, metav1.TableRow{Cells: cells})
	}
	return table
}

// listOf makes a List of the rows, each of the kind given.
func listOf[T any](kind string, rows []T) (*unstructured.UnstructuredList, error) {
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "List"}}
	for i := range rows {
		data, err := json.Marshal(rows[i])
		if err != nil {
			return nil, err
		}
		var object map[string]any
		if err := json.Unmarshal(data, &object); err != nil {
			return nil, err
		}
		object["apiVersion"], object["kind"] = apiVersion, kind
		list.Items = append(list.Items, unstructured.Unstructured{Object: object})
	}
	return list, nil
}

// warn tells on standard error what makes the rest less than whole.
func warn(w io.Writer, problems []string) {
	for _, p := range problems {
		fmt.Fprintln(w, "Warning:", p)
	}
}

// ago is the time since then, short; empty for never.
func ago(then, now time.Time) string {
	if then.IsZero() {
		return ""
	}
	return duration.HumanDuration(max(0, now.Sub(then)))
}

// left is the time until then, or since.
func left(then, now time.Time) string {
	switch d := then.Sub(now); {
	case then.IsZero():
		return ""
	case d > 0:
		return duration.HumanDuration(d)
	default:
		return duration.HumanDuration(-d) + " over"
	}
}

func commas(texts []string) string { return strings.Join(texts, ",") }

// stamp is a time as JSON prints it, nil for never.
func stamp(t time.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &metav1.Time{Time: t}
}
