package node

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"fanfold.dev/cluster/internal/plan"
	"fanfold.dev/cluster/internal/process"
)

// namespaces that a node has of its own. Its cgroups stay the machine's, in a folder of their own.
const namespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

// Start runs a node's init in the background and plugs its network in. The node must not run.
func Start(node plan.Node) error {
	if err := os.Remove(node.Outside(plan.NodeReady)); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("clear the sign of the last run: %w", err)
	}
	if err := EnsureCgroup(node.Cgroup()); err != nil {
		return err
	}
	// What a killed node leaves behind goes with its network namespace, but only after a moment.
	if err := Unplug(node.Interface()); err != nil {
		return err
	}
	command := exec.Command("/proc/self/exe", "node-init", "--name", node.Cluster.Name, "--state", node.Cluster.State,
		"--slot", strconv.Itoa(node.Cluster.Slot), "--nodes", strconv.Itoa(node.Cluster.Nodes), "--number", strconv.Itoa(node.Number))
	attributes := &syscall.SysProcAttr{Setsid: true, Cloneflags: namespaces}
	pid, err := process.Detach(command, node.Cluster.Owner(), node.Name(), node.Log("init"), attributes)
	if err != nil {
		return err
	}
	return plug(node, pid)
}
