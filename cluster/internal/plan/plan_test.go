package plan

import (
	"fmt"
	"strings"
	"testing"
)

func cluster(name string, slot int) Cluster {
	return Cluster{Name: name, State: "/state", Slot: slot, Nodes: MaxNodes}
}

func TestInterfaceNamesFitTheKernelsLimit(t *testing.T) {
	for _, name := range []string{"a", "fanfold", "exactly8", "a-rather-long-name-for-a-test"} {
		c := cluster(name, 0)
		names := []string{c.Bridge()}
		for _, node := range c.AllNodes() {
			names = append(names, node.Interface())
		}
		for _, device := range names {
			if len(device) > 15 {
				t.Errorf("%s of cluster %s has %d bytes", device, name, len(device))
			}
		}
	}
}

func TestLongNamesThatBeginAlikeGetDifferentInterfaces(t *testing.T) {
	if one, two := cluster("integration-one", 0), cluster("integration-two", 0); one.Bridge() == two.Bridge() {
		t.Errorf("both are %s", one.Bridge())
	}
}

func TestNoTwoClustersOrNodesShareAnAddress(t *testing.T) {
	links, pods := map[string]string{}, map[string]string{}
	for slot := range Slots {
		c := cluster(fmt.Sprintf("c%d", slot), slot)
		for _, node := range c.AllNodes() {
			for seen, key := range map[*map[string]string]string{&links: node.Address().String(), &pods: node.Pods().String()} {
				if other, taken := (*seen)[key]; taken {
					t.Fatalf("%s is %s's and %s's", key, node.Name(), other)
				}
				(*seen)[key] = node.Name()
			}
			if !c.Links().Contains(node.Address()) || node.Address() == c.Host() {
				t.Errorf("%s has address %s in %s", node.Name(), node.Address(), c.Links())
			}
			if !c.Pods().Contains(node.Pods().Addr()) {
				t.Errorf("%s: pods %s are not in %s", node.Name(), node.Pods(), c.Pods())
			}
		}
	}
}

func TestTheDNSAddressIsAServiceAddress(t *testing.T) {
	if got := cluster("a", 3).DNS().String(); got != "10.96.0.10" {
		t.Errorf("got %s", got)
	}
}

func TestANodesPathsLeadToItsOwnFolders(t *testing.T) {
	node := cluster("fanfold", 0).AllNodes()[1]
	for inside, outside := range map[string]string{
		"/var/lib/kubelet": "/state/nodes/fanfold-2/var/lib/kubelet",
		NodeSocket:         "/run/fanfold-cluster/fanfold/fanfold-2/containerd/containerd.sock",
	} {
		if got := node.Outside(inside); got != outside {
			t.Errorf("%s is %s, want %s", inside, got, outside)
		}
	}
}

func TestTheSocketsPathIsShortEnoughForTheLongestName(t *testing.T) {
	node := cluster(strings.Repeat("n", 24), 0).AllNodes()[0]
	if path := node.Outside(NodeSocket); len(path) > 107 {
		t.Errorf("%s has %d bytes", path, len(path))
	}
}

func TestBadNamesAndSizesAreRefused(t *testing.T) {
	for _, bad := range []Cluster{
		{Name: "", Nodes: 1}, {Name: "Upper", Nodes: 1}, {Name: "../etc", Nodes: 1}, {Name: "1st", Nodes: 1}, {Name: "end-", Nodes: 1},
		{Name: strings.Repeat("n", 25), Nodes: 1}, {Name: "ok", Nodes: 0}, {Name: "ok", Nodes: MaxNodes + 1}, {Name: "ok", Nodes: 1, Slot: Slots},
	} {
		if bad.Check() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	if err := cluster("fanfold", Slots-1).Check(); err != nil {
		t.Error(err)
	}
}

func TestTheSlotOfANameNeverChanges(t *testing.T) {
	if got := PreferredSlot(DefaultName); got != PreferredSlot(DefaultName) || got < 0 || got >= Slots {
		t.Errorf("got %d", got)
	}
}
