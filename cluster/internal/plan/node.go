package plan

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// Node is one node of a cluster: a set of namespaces on this machine.
type Node struct {
	Cluster Cluster
	Number  int // from 1
}

// Name is the node's host name, the name of its Node object, and its component's.
func (n Node) Name() string { return fmt.Sprintf("%s-%d", n.Cluster.Name, n.Number) }

// Interface is the machine's end of the node's cable.
func (n Node) Interface() string { return fmt.Sprintf("ff-%s-%d", n.Cluster.id(), n.Number) }

// Cgroup is the name of the node's cgroup, at the top of each hierarchy.
func (n Node) Cgroup() string { return "ff-" + n.Name() }

// Address is the node's own.
func (n Node) Address() netip.Addr {
	address := n.Cluster.Links().Addr().As4()
	address[3] = byte(1 + n.Number)
	return netip.AddrFrom4(address)
}

// Pods is the range of this node's pods.
func (n Node) Pods() netip.Prefix {
	address := n.Cluster.Pods().Addr().As4()
	address[2] += byte(n.Number - 1)
	return netip.PrefixFrom(netip.AddrFrom4(address), 24)
}

// Var and Run are the folders of the machine that the node sees as /var and /run.
func (n Node) Var() string { return filepath.Join(n.Cluster.State, "nodes", n.Name(), "var") }

// Run is gone after a stop, like any machine's /run.
func (n Node) Run() string { return filepath.Join(n.Cluster.RunDir(), n.Name()) }

// Outside turns a path that the node sees, under /var or /run, into the machine's path of the same file.
func (n Node) Outside(inside string) string {
	if rest, ok := strings.CutPrefix(inside, "/run/"); ok {
		return filepath.Join(n.Run(), rest)
	}
	return filepath.Join(n.Var(), strings.TrimPrefix(inside, "/var/"))
}

// Log is the machine's path of the log of one of the node's programs.
func (n Node) Log(program string) string { return n.Outside("/var/log/" + program + ".log") }
