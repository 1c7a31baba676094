package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fanfold.dev/cluster/internal/plan"
	"sigs.k8s.io/yaml"
)

func written(t *testing.T) (plan.Node, func(string) []byte) {
	t.Helper()
	cluster := plan.Cluster{Name: "config-test", State: t.TempDir(), Slot: 7, Nodes: 2}
	if err := cluster.ControlPlane().Prepare(Identities(cluster), time.Now); err != nil {
		t.Fatal(err)
	}
	node := cluster.AllNodes()[1]
	if err := os.MkdirAll(node.Outside(plan.NodeConfig+"/cni"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFiles(node, "localhost/pause:1"); err != nil {
		t.Fatal(err)
	}
	return node, func(name string) []byte {
		data, err := os.ReadFile(node.Outside(filepath.Join(plan.NodeConfig, name)))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
}

func TestTheKubeletsConfigurationNamesTheNodesOwnParts(t *testing.T) {
	node, file := written(t)
	var config struct {
		Kind, CgroupRoot string
		ClusterDNS       []string
	}
	if err := yaml.Unmarshal(file("kubelet.yaml"), &config); err != nil {
		t.Fatal(err)
	}
	if config.Kind != "KubeletConfiguration" || config.CgroupRoot != "/"+node.Cgroup() || config.ClusterDNS[0] != "10.96.0.10" {
		t.Errorf("got %+v", config)
	}
}

func TestThePodNetworkIsTheNodesPartOfTheRange(t *testing.T) {
	node, file := written(t)
	if !json.Valid(file("cni/10-pods.conflist")) || !strings.Contains(string(file("cni/10-pods.conflist")), node.Pods().String()) {
		t.Errorf("got %s", file("cni/10-pods.conflist"))
	}
}

func TestANodeGetsItsOwnKeyAndNotTheAdministrators(t *testing.T) {
	node, file := written(t)
	store := node.Cluster.ControlPlane().Store()
	own, err := os.ReadFile(store.Key(kubeletIdentity(node)))
	if err != nil {
		t.Fatal(err)
	}
	if string(file("kubelet.key")) != string(own) {
		t.Error("the kubelet has another node's key")
	}
	admin, err := os.ReadFile(node.Cluster.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if string(file("kubelet.kubeconfig")) == string(admin) {
		t.Error("the kubelet is an administrator")
	}
}
