package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"fanfold.dev/cluster/internal/node"
	"fanfold.dev/cluster/internal/plan"
	"fanfold.dev/cluster/internal/process"
	"fanfold.dev/cluster/internal/wait"
)

// vanishLimit bounds the wait for a killed node's init to be gone.
const vanishLimit = 10 * time.Second

// StopNode ends a node as a power cut does: its init is killed, and with it the kernel ends the kubelet, containerd and
// all pods, and takes down the node's network, at once. Nobody says good-bye, and the API server is told nothing.
// Stopping a node that does not run is no error.
func StopNode(ctx context.Context, options Options, name string) error {
	cluster, n, held, err := holdNode(options, name)
	if err != nil {
		return err
	}
	defer held.Close()
	gone := wait.Goal{What: n.Name() + " to be gone", Limit: vanishLimit}
	if err := wait.Until(ctx, gone, func(context.Context) error { return killInit(cluster, n) }); err != nil {
		return err
	}
	return node.Unplug(n.Interface())
}

// killInit returns nil once the node's init does not run.
func killInit(cluster plan.Cluster, n plan.Node) error {
	all, err := process.Find(cluster.Owner())
	if err != nil {
		return wait.Fatal(err)
	}
	for _, p := range all {
		if p.Component == n.Name() {
			return errors.Join(p.Signal(cluster.Owner(), syscall.SIGKILL), fmt.Errorf("process %d still runs", p.PID))
		}
	}
	return nil
}

// StartNode starts a stopped node again and waits until pods can run on it. The cluster must run.
func StartNode(ctx context.Context, options Options, name string, output io.Writer) error {
	cluster, n, held, err := holdNode(options, name)
	if err != nil {
		return err
	}
	defer held.Close()
	alive, err := running(cluster)
	if err != nil {
		return err
	}
	if !alive[supervisorComponent] {
		return fmt.Errorf("%w: start it with fanfold-cluster up", ErrNotRunning)
	}
	if alive[n.Name()] {
		return nil
	}
	pause, archive, err := pauseImage()
	if err != nil {
		return err
	}
	started := time.Now()
	if err := startNode(n, pause); err != nil {
		return err
	}
	p := &progress{output: output, last: started}
	return p.followNode(ctx, n, started, pause, archive)
}

func startNode(n plan.Node, pause string) error {
	if err := node.WriteConfig(n, pause); err != nil {
		return err
	}
	return node.Start(n)
}

// holdNode finds a node of a cluster by its name and keeps other commands off the cluster until held is closed.
func holdNode(options Options, name string) (cluster plan.Cluster, n plan.Node, held io.Closer, err error) {
	if os.Geteuid() != 0 {
		return cluster, n, nil, errors.New("nodes are root's: run this with sudo")
	}
	cluster, known, err := find(options)
	if err != nil {
		return cluster, n, nil, err
	}
	if !known {
		return cluster, n, nil, fmt.Errorf("cluster %s was never started", cluster.Name)
	}
	if n, err = nodeNamed(cluster, name); err != nil {
		return cluster, n, nil, err
	}
	held, err = lock(cluster)
	return cluster, n, held, err
}

func nodeNamed(cluster plan.Cluster, name string) (plan.Node, error) {
	var names []string
	for _, n := range cluster.AllNodes() {
		if n.Name() == name {
			return n, nil
		}
		names = append(names, n.Name())
	}
	return plan.Node{}, fmt.Errorf("cluster %s has no node %q: choose one of %s", cluster.Name, name, strings.Join(names, ", "))
}
