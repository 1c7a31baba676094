// Package lifecycle starts, inspects and stops clusters.
package lifecycle

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"fanfold.dev/cluster/internal/doctor"
	"fanfold.dev/cluster/internal/node"
	"fanfold.dev/cluster/internal/plan"
	"fanfold.dev/cluster/internal/process"
)

// supervisorComponent keeps the control plane and the addons running.
const supervisorComponent = "supervisor"

// Options name a cluster. Zero values mean: what the cluster was started with, else the defaults.
type Options struct {
	Name  string
	State string
	Nodes int
}

// record is what a cluster remembers of itself in its state folder.
type record struct {
	Slot  int `json:"slot"`
	Nodes int `json:"nodes"`
}

func recordFile(state string) string { return filepath.Join(state, "cluster.json") }

// find describes the cluster as it was started, or as a first start would make it if it has no state yet.
func find(options Options) (cluster plan.Cluster, known bool, err error) {
	cluster = plan.Cluster{Name: options.Name, State: options.State, Nodes: 1, Slot: plan.PreferredSlot(options.Name)}
	if err := cluster.Check(); err != nil {
		return cluster, false, err
	}
	if err := setState(&cluster); err != nil {
		return cluster, false, err
	}
	data, err := os.ReadFile(recordFile(cluster.State))
	if errors.Is(err, os.ErrNotExist) {
		return cluster, false, nil
	}
	if errors.Is(err, os.ErrPermission) {
		return cluster, false, fmt.Errorf("%w: a cluster is root's, run this with sudo", err)
	}
	var r record
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		return cluster, false, fmt.Errorf("read %s: %w", recordFile(cluster.State), err)
	}
	cluster.Slot, cluster.Nodes = r.Slot, r.Nodes
	return cluster, true, cluster.Check()
}

// setState finds the state folder: the one given, which must not contradict a running cluster's, else a running
// cluster's, else the default one.
func setState(cluster *plan.Cluster) error {
	running, err := os.Readlink(cluster.StateLink())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("find the running cluster's state: %w", err)
	}
	if cluster.State == "" {
		cluster.State = running
		if running == "" {
			cluster.State = plan.DefaultState(cluster.Name)
		}
		return nil
	}
	if cluster.State, err = filepath.Abs(cluster.State); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	if running != "" && running != cluster.State {
		return fmt.Errorf("cluster %s already has its state in %s: stop it first, or choose another --name", cluster.Name, running)
	}
	return nil
}

// create finds the cluster and writes down what its later starts must know.
func create(options Options) (plan.Cluster, error) {
	cluster, known, err := find(options)
	if err != nil {
		return cluster, err
	}
	if known && options.Nodes != 0 && options.Nodes != cluster.Nodes {
		return cluster, fmt.Errorf("cluster %s has %d nodes: remove it (down --purge) to start it with %d", cluster.Name, cluster.Nodes, options.Nodes)
	}
	if options.Nodes != 0 {
		cluster.Nodes = options.Nodes
	}
	if err := os.MkdirAll(cluster.State, 0o700); err != nil {
		return cluster, fmt.Errorf("make the state folder: %w", err)
	}
	if err := doctor.CheckState(cluster.State); err != nil {
		return cluster, err
	}
	if !known {
		if err := settle(&cluster); err != nil {
			return cluster, err
		}
	}
	return cluster, linkState(cluster)
}

// settle gives a new cluster its addresses, for good.
func settle(cluster *plan.Cluster) (err error) {
	if cluster.Slot, err = node.FreeSlot(*cluster); err != nil {
		return err
	}
	if err := cluster.Check(); err != nil {
		return err
	}
	data, err := json.Marshal(record{Slot: cluster.Slot, Nodes: cluster.Nodes})
	if err != nil {
		return fmt.Errorf("describe the cluster: %w", err)
	}
	if err := os.WriteFile(recordFile(cluster.State), data, 0o644); err != nil {
		return fmt.Errorf("write down the cluster: %w", err)
	}
	return nil
}

func linkState(cluster plan.Cluster) error {
	if err := os.MkdirAll(cluster.RunDir(), 0o755); err != nil {
		return fmt.Errorf("make the run folder: %w", err)
	}
	if err := os.Symlink(cluster.State, cluster.StateLink()); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("link the state folder: %w", err)
	}
	return nil
}

// lock keeps two commands from changing the same cluster at once. The kernel drops the lock with its process.
func lock(cluster plan.Cluster) (net.Listener, error) {
	held, err := net.Listen("unix", "@fanfold-cluster/"+cluster.Name)
	if err != nil {
		return nil, fmt.Errorf("another command is starting or stopping cluster %s: let it finish", cluster.Name)
	}
	return held, nil
}

// running lists the components of which a process runs.
func running(cluster plan.Cluster) (map[string]bool, error) {
	processes, err := process.Find(cluster.Owner())
	if err != nil {
		return nil, err
	}
	components := map[string]bool{}
	for _, p := range processes {
		components[p.Component] = true
	}
	return components, nil
}

// Kubeconfig is the path of the cluster's kubeconfig for people.
func Kubeconfig(options Options) (string, error) {
	cluster, _, err := find(options)
	if err != nil {
		return "", err
	}
	path := cluster.Kubeconfig()
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("cluster %s was never started: %w", cluster.Name, err)
	}
	return path, nil
}
