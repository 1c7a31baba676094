package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"fanfold.dev/cluster/internal/node"
	"fanfold.dev/cluster/internal/plan"
	"fanfold.dev/cluster/internal/process"
)

const (
	// nodeGrace covers the farewell to the containers and the graces of the node's programs.
	nodeGrace = 20 * time.Second
	// supervisorGrace covers those of the control plane's programs.
	supervisorGrace = 30 * time.Second
)

// Down stops the cluster and removes every trace of it from the machine but its state folder; with purge that too.
// It needs nothing to be intact: what a crash or a kill left behind is found by name.
func Down(ctx context.Context, options Options, purge bool) error {
	if os.Geteuid() != 0 {
		return errors.New("a cluster is stopped by root: run this with sudo")
	}
	cluster, known, err := find(options)
	if err != nil && !purge {
		return err
	}
	if !known {
		cluster.Nodes = plan.MaxNodes // nobody knows how many there were
	}
	held, err := lock(cluster)
	if err != nil {
		return err
	}
	defer held.Close()
	if !purge {
		askToEnd(ctx, cluster)
	}
	if err := process.KillAll(ctx, cluster.Owner()); err != nil {
		return err
	}
	if err := removeTraces(ctx, cluster); err != nil {
		return err
	}
	if purge {
		return removeState(cluster)
	}
	return nil
}

// askToEnd lets the programs end by themselves, the nodes first, while there is still an API server to tell. What does
// not is killed next.
func askToEnd(ctx context.Context, cluster plan.Cluster) {
	for _, n := range cluster.AllNodes() {
		_ = process.End(ctx, cluster.Owner(), n.Name(), nodeGrace)
	}
	_ = process.End(ctx, cluster.Owner(), supervisorComponent, supervisorGrace)
}

// removeTraces removes interfaces (and with them routes and addresses), cgroups and the run folder. All else (mounts,
// firewall rules, the nodes' interfaces) lived in the nodes' namespaces and went with them.
func removeTraces(ctx context.Context, cluster plan.Cluster) error {
	var problems []error
	for _, n := range cluster.AllNodes() {
		problems = append(problems, node.Unplug(n.Interface()), node.RemoveCgroup(ctx, n.Cgroup()))
	}
	problems = append(problems, node.Unplug(cluster.Bridge()), removeFolder(cluster.RunDir()))
	return errors.Join(problems...)
}

// removeState removes the state folder if it is one: a mistyped --state must not cost anybody their files.
func removeState(cluster plan.Cluster) error {
	if _, err := os.Stat(cluster.State); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Stat(recordFile(cluster.State)); err != nil {
		return fmt.Errorf("%s is no cluster's state folder (%w): remove it by hand if it is to go", cluster.State, err)
	}
	return removeFolder(cluster.State)
}

// removeFolder removes a folder, and its parent if that is one of ours and now empty.
func removeFolder(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	if plan.IsParent(filepath.Dir(path)) {
		_ = os.Remove(filepath.Dir(path)) // refused while another cluster's folder is in it
	}
	return nil
}
