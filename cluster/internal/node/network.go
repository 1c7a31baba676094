package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"fanfold.dev/cluster/internal/plan"
	"fanfold.dev/cluster/internal/wait"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// uplink is the node's end of its cable, as in any machine.
const uplink = "eth0"

// FreeSlot finds a slot whose address ranges no route of this machine touches, the preferred one first.
// It returns plan.Slots when all are taken.
func FreeSlot(cluster plan.Cluster) (int, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return 0, fmt.Errorf("list the machine's routes: %w", err)
	}
	var taken []netip.Prefix
	for _, route := range routes {
		if prefix, ok := toPrefix(route.Dst); ok && prefix.Bits() > 0 {
			taken = append(taken, prefix)
		}
	}
	return freeSlot(cluster, taken), nil
}

func freeSlot(cluster plan.Cluster, taken []netip.Prefix) int {
	first := plan.PreferredSlot(cluster.Name)
	for i := range plan.Slots {
		cluster.Slot = (first + i) % plan.Slots
		if !overlaps(cluster.Links(), taken) && !overlaps(cluster.Pods(), taken) {
			return cluster.Slot
		}
	}
	return plan.Slots
}

func overlaps(prefix netip.Prefix, others []netip.Prefix) bool {
	for _, other := range others {
		if prefix.Overlaps(other) {
			return true
		}
	}
	return false
}

func toPrefix(network *net.IPNet) (netip.Prefix, bool) {
	if network == nil {
		return netip.Prefix{}, false
	}
	address, ok := netip.AddrFromSlice(network.IP)
	bits, _ := network.Mask.Size()
	return netip.PrefixFrom(address.Unmap(), bits), ok
}

func toIPNet(address netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(bits, 32)}
}

// EnsureBridge makes the bridge to which the nodes are plugged, with the machine's address, and routes to the pods.
func EnsureBridge(cluster plan.Cluster) error {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = cluster.Bridge()
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make bridge %s: %w", attributes.Name, err)
	}
	bridge, err := netlink.LinkByName(attributes.Name)
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", attributes.Name, err)
	}
	if err := configure(bridge, toIPNet(cluster.Host(), cluster.Links().Bits())); err != nil {
		return err
	}
	for _, node := range cluster.AllNodes() {
		if err := routePods(bridge, node); err != nil {
			return err
		}
	}
	return nil
}

func configure(link netlink.Link, address *net.IPNet) error {
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: address}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", link.Attrs().Name, address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", link.Attrs().Name, err)
	}
	return nil
}

// routePods leads packets for a node's pods to the node.
func routePods(link netlink.Link, to plan.Node) error {
	pods := to.Pods()
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index,
		Dst:       toIPNet(pods.Addr(), pods.Bits()),
		Gw:        to.Address().AsSlice(),
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route the pods of %s: %w", to.Name(), err)
	}
	return nil
}

// plug lays a cable from the bridge into the network namespace of the node's init process.
func plug(node plan.Node, init int) error {
	bridge, err := netlink.LinkByName(node.Cluster.Bridge())
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", node.Cluster.Bridge(), err)
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = node.Interface()
	attributes.MasterIndex = bridge.Attrs().Index
	cable := &netlink.Veth{LinkAttrs: attributes, PeerName: uplink, PeerNamespace: netlink.NsPid(init)}
	if err := netlink.LinkAdd(cable); err != nil {
		return fmt.Errorf("plug %s in: %w", node.Interface(), err)
	}
	if err := netlink.LinkSetUp(cable); err != nil {
		return fmt.Errorf("set %s up: %w", node.Interface(), err)
	}
	return nil
}

// Unplug removes an interface of the machine if it is there.
func Unplug(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove interface %s: %w", name, err)
	}
	return nil
}

// plugLimit bounds the node's wait for the cable that the process which started it lays.
const plugLimit = 20 * time.Second

// setUpInside configures the network from within the node.
func setUpInside(ctx context.Context, node plan.Node) error {
	goal := wait.Goal{What: uplink + " to be plugged in", Limit: plugLimit}
	var cable netlink.Link
	err := wait.Until(ctx, goal, func(context.Context) (err error) {
		cable, err = netlink.LinkByName(uplink)
		return err
	})
	if err != nil {
		return err
	}
	loopback, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find the loopback interface: %w", err)
	}
	if err := netlink.LinkSetUp(loopback); err != nil {
		return fmt.Errorf("set the loopback interface up: %w", err)
	}
	if err := configure(cable, toIPNet(node.Address(), node.Cluster.Links().Bits())); err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: cable.Attrs().Index, Gw: node.Cluster.Host().AsSlice()}); err != nil {
		return fmt.Errorf("set the default route: %w", err)
	}
	for _, other := range node.Cluster.AllNodes() {
		if other.Number == node.Number {
			continue
		}
		if err := routePods(cable, other); err != nil {
			return err
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("let the node forward packets: %w", err)
	}
	return nil
}
