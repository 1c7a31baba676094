package node

import (
	"net/netip"
	"testing"

	"fanfold.dev/cluster/internal/plan"
)

func TestAClusterTakesItsPreferredSlotIfThatIsFree(t *testing.T) {
	cluster := plan.Cluster{Name: "fanfold", Nodes: 1}
	elsewhere := []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}
	if got := freeSlot(cluster, elsewhere); got != plan.PreferredSlot("fanfold") {
		t.Errorf("got slot %d", got)
	}
}

func TestAClusterEvadesRangesThatTheMachineAlreadyRoutes(t *testing.T) {
	cluster := plan.Cluster{Name: "fanfold", Nodes: 1}
	preferred := plan.PreferredSlot("fanfold")
	cluster.Slot = preferred
	for _, taken := range []netip.Prefix{cluster.Links(), netip.PrefixFrom(cluster.Pods().Addr(), 24)} {
		if got := freeSlot(cluster, []netip.Prefix{taken}); got == preferred || got >= plan.Slots {
			t.Errorf("with %s taken it gets slot %d", taken, got)
		}
	}
}

func TestOneNetworkOverAllRangesLeavesNoSlot(t *testing.T) {
	all := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	if got := freeSlot(plan.Cluster{Name: "fanfold", Nodes: 1}, all); got != plan.Slots {
		t.Errorf("got slot %d", got)
	}
}
