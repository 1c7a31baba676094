package main

import (
	"fmt"
	"os"
	"path/filepath"

	"fanfold.dev/cluster/internal/components"
	_ "sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

func main() {
	name := filepath.Base(os.Args[0])
	if run, ok := components.Lookup(name); ok {
		os.Exit(run())
	}
	if len(os.Args) > 1 {
		if run, ok := components.Lookup(os.Args[1]); ok {
			os.Args = os.Args[1:]
			os.Exit(run())
		}
	}
	fmt.Fprintln(os.Stderr, "fanfold-cluster: name one of", components.Names())
	os.Exit(2)
}
