// Package node makes nodes: sets of namespaces on this machine, each with an init process that keeps containerd, the
// kubelet and kube-proxy running. All of a node's processes live in the init's process namespace and all its mounts
// and interfaces in its others, so the kernel itself removes everything when the init dies, however it dies.
package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"fanfold.dev/cluster/internal/plan"
	"fanfold.dev/cluster/internal/process"
	"fanfold.dev/cluster/internal/supervise"
	"golang.org/x/sys/unix"
)

const (
	startLimit = 2 * time.Minute
	// farewell is what the containers get to end by themselves before the node's end kills them.
	farewell     = 5 * time.Second
	farewellStep = 50 * time.Millisecond
	// logDir is the node's own.
	logDir = "/var/log"
)

// Init is the node's first process. It returns when it was told to stop, or when a program could not be started.
func Init(ctx context.Context, node plan.Node) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("node-init runs as the first process of a node: start one with %q", "fanfold-cluster up")
	}
	supervisor := supervise.New(supervise.Options{
		Owner: node.Cluster.Owner(), LogDir: logDir, ShownAs: node.Outside(logDir), Restart: true,
	})
	if err := settle(ctx, node); err != nil {
		return err
	}
	err := supervisor.Run(ctx, programs(node), markReady)
	sayFarewell(node.Cluster.Owner())
	return err
}

// settle gives the node its own view of the machine: name, processes, /run, /var and network.
func settle(ctx context.Context, node plan.Node) error {
	if err := syscall.Sethostname([]byte(node.Name())); err != nil {
		return fmt.Errorf("name the node: %w", err)
	}
	if err := mountAll(node); err != nil {
		return err
	}
	return setUpInside(ctx, node)
}

// mountAll replaces what the machine's mounts show with the node's own folders. First it cuts the ties to the
// machine's mounts, so that nothing mounted here shows there; then it shares them among the node's own containers, as
// volumes with mount propagation expect.
func mountAll(node plan.Node) error {
	for _, propagation := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", unix.MS_REC|propagation, ""); err != nil {
			return fmt.Errorf("separate the node's mounts: %w", err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount the node's /proc: %w", err)
	}
	// Opened first: each folder may lie in one that the other's mount hides.
	var folders []*os.File
	for _, path := range []string{node.Run(), node.Var()} {
		folder, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("open the node's folders: %w", err)
		}
		defer folder.Close()
		folders = append(folders, folder)
	}
	for i, target := range []string{"/run", "/var"} {
		source := filepath.Join("/proc/self/fd", strconv.Itoa(int(folders[i].Fd())))
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount the node's %s: %w", target, err)
		}
	}
	return nil
}

// sayFarewell asks every process left in the node to end and waits a little: a database that is told so starts faster
// the next time. The shims are told too, but need not end: they carry the owner's mark, the containers don't.
func sayFarewell(owner string) {
	if err := syscall.Kill(-1, syscall.SIGTERM); err != nil {
		return // nobody is left
	}
	for deadline := time.Now().Add(farewell); time.Now().Before(deadline); time.Sleep(farewellStep) {
		if containers, err := process.CountOthers(owner); err != nil || containers == 0 {
			return
		}
	}
}
