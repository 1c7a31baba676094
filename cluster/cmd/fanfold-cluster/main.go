// fanfold-cluster runs a Kubernetes cluster on one machine. Every program of the cluster is this same binary: which one
// it becomes is said by the name it is called with or by its first argument.
package main

import (
	"os"
	"path/filepath"
	"unsafe"

	"fanfold.dev/cluster/internal/cli"
	"fanfold.dev/cluster/internal/components"
	"golang.org/x/sys/unix"
)

func main() {
	if run, ok := components.Lookup(filepath.Base(os.Args[0])); ok {
		become(run)
	}
	if len(os.Args) > 1 {
		if run, ok := components.Lookup(os.Args[1]); ok {
			os.Args = os.Args[1:]
			become(run)
		}
	}
	become(func() int { return cli.Run(components.Names()) })
}

// become runs a program to its end, under its own name in process lists: the kernel knows one that was started as
// /proc/self/exe as "exe".
func become(run func() int) {
	if name, err := unix.BytePtrFromString(filepath.Base(os.Args[0])); err == nil {
		_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0) // cosmetic: a failure changes nothing
	}
	os.Exit(run())
}
