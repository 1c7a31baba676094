// Package plan decides the names, addresses and folders of a cluster from its name: nothing here touches the machine.
package plan

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	"fanfold.dev/cluster/internal/controlplane"
)

const (
	// DefaultName is the cluster's when none is given.
	DefaultName = "fanfold"
	// Slots is how many clusters can run side by side: each has its own addresses by its slot.
	Slots = 64
	// MaxNodes of one cluster: its pod range is cut in as many parts.
	MaxNodes = 4

	stateParent = "/var/lib/fanfold-cluster"
	runParent   = "/run/fanfold-cluster"

	// NodeConfig is the folder with a node's configuration, as the node sees it.
	NodeConfig = "/var/lib/fanfold-node"
	// NodeVolumes is the folder with a node's persistent volumes, as the node sees it.
	NodeVolumes = "/var/lib/fanfold-volumes"
	// NodeReady is the file, as the node sees it, that says that its pods can run and find Services.
	NodeReady = "/run/fanfold-ready"
	// NodeSocket is containerd's socket, as the node sees it.
	NodeSocket = "/run/containerd/containerd.sock"

	apiPort        = 6443
	controllerPort = 10257
	schedulerPort  = 10259
	// DNSPort is not 53, which a resolver of the machine may hold on all its addresses.
	DNSPort     = 1053
	MetricsPort = 4443
)

// services is the same range in every cluster: Service addresses lead somewhere inside a node only.
var services = netip.MustParsePrefix("10.96.0.0/16")

// Cluster is one cluster of this machine.
type Cluster struct {
	Name  string
	State string // folder that outlives a stop
	Slot  int    // 0 <= Slot < Slots
	Nodes int    // 1 <= Nodes <= MaxNodes
}

// validName keeps names fit for host names, folders, cgroups and interfaces.
var validName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,23}$`)

// Check says what is wrong with a cluster's name or size.
func (c Cluster) Check() error {
	if !validName.MatchString(c.Name) || strings.HasSuffix(c.Name, "-") {
		return fmt.Errorf("cluster name %q: use at most 24 lower-case letters, digits and inner hyphens, a letter first", c.Name)
	}
	if c.Nodes < 1 || c.Nodes > MaxNodes {
		return fmt.Errorf("%d nodes: a cluster has 1 to %d", c.Nodes, MaxNodes)
	}
	if c.Slot < 0 || c.Slot >= Slots {
		return errors.New("all address ranges for clusters are taken: stop another cluster first")
	}
	return nil
}

// DefaultState is the folder of a cluster for which none is given.
func DefaultState(name string) string { return filepath.Join(stateParent, name) }

// PreferredSlot spreads clusters over the slots by their names, so that each finds its addresses again.
func PreferredSlot(name string) int { return int(hash(name) % Slots) }

func hash(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// Owner marks the cluster's processes.
func (c Cluster) Owner() string { return "cluster:" + c.Name }

// id is the name, cut for interface names, which the kernel limits to 15 bytes.
func (c Cluster) id() string {
	if len(c.Name) <= 8 {
		return c.Name
	}
	return fmt.Sprintf("%s%05x", c.Name[:3], hash(c.Name)&0xfffff)
}

// Bridge is the interface on the machine to which the nodes are plugged.
func (c Cluster) Bridge() string { return "ff-" + c.id() }

// Links is the range of the machine's and the nodes' own addresses.
func (c Cluster) Links() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, byte(c.Slot), 0}), 24)
}

// Host is the machine's address in the cluster: the control plane listens there.
func (c Cluster) Host() netip.Addr { return c.Links().Addr().Next() }

// Pods is the range of all pods' addresses.
func (c Cluster) Pods() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(c.Slot * MaxNodes), 0}), 22)
}

// DNS is the address at which pods ask for names.
func (c Cluster) DNS() netip.Addr {
	address := services.Addr().As4()
	address[3] = 10
	return netip.AddrFrom4(address)
}

// ControlPlane describes the control plane of this cluster.
func (c Cluster) ControlPlane() controlplane.Config {
	return controlplane.Config{
		Name: c.Name, Dir: filepath.Join(c.State, "control-plane"), Address: c.Host(), Services: services,
		Ports: controlplane.Ports{API: apiPort, Controllers: controllerPort, Scheduler: schedulerPort},
	}
}

// Kubeconfig is the path of the kubeconfig for people.
func (c Cluster) Kubeconfig() string { return c.ControlPlane().AdminKubeconfig() }

// LogDir has one log per program.
func (c Cluster) LogDir() string { return filepath.Join(c.State, "logs") }

// RunDir is the folder that goes with the last process.
func (c Cluster) RunDir() string { return filepath.Join(runParent, c.Name) }

// StateLink leads from the cluster's name to its state folder while it runs.
func (c Cluster) StateLink() string { return filepath.Join(c.RunDir(), "state") }

// AllNodes lists the nodes.
func (c Cluster) AllNodes() []Node {
	nodes := make([]Node, c.Nodes)
	for i := range nodes {
		nodes[i] = Node{Cluster: c, Number: i + 1}
	}
	return nodes
}

// IsParent tells whether a folder exists only to hold clusters' folders.
func IsParent(path string) bool { return path == stateParent || path == runParent }
