package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	o := Options{}
	flag.StringVar(&o.Config, "config", "config", "folder of the manifests")
	flag.StringVar(&o.Version, "version", "", "version of the bundle, such as 0.1.0")
	flag.StringVar(&o.Replaces, "replaces", "", "version that this one replaces")
	flag.StringVar(&o.Image, "image", "", "image of the bundle; empty: the catalog holds its objects itself")
	flag.BoolVar(&o.Pinned, "pinned", false, "refuse images that are not pinned by a digest, as a release must")
	out := flag.String("out", "bundle", "folder to write")
	flag.Parse()
	if err := run(o, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

// run writes the bundle's files and removes what is no longer one of them.
func run(o Options, out string) error {
	files, err := Generate(o)
	if err != nil {
		return err
	}
	for _, dir := range []string{"manifests", "metadata", "tests", "catalog"} {
		if err := os.RemoveAll(filepath.Join(out, dir)); err != nil {
			return err
		}
	}
	for name, content := range files {
		path := filepath.Join(out, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
