package addons

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"fanfold.dev/cluster/internal/plan"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func rendered(t *testing.T) map[string]*bytes.Buffer {
	t.Helper()
	cluster := plan.Cluster{Name: "addons-test", State: t.TempDir(), Slot: 5, Nodes: 1}
	if err := cluster.ControlPlane().Prepare(Identities(cluster), time.Now); err != nil {
		t.Fatal(err)
	}
	texts, err := render(cluster)
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

func TestEveryManifestIsAStreamOfNamedObjects(t *testing.T) {
	kinds := map[string]int{}
	for name, text := range rendered(t) {
		if name == corefileTemplate {
			continue
		}
		decoder := yaml.NewYAMLOrJSONDecoder(text, 4096)
		for {
			object := &unstructured.Unstructured{}
			err := decoder.Decode(object)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil || object.GetName() == "" || object.GetKind() == "" {
				t.Fatalf("%s: %v in %v", name, err, object)
			}
			kinds[object.GetKind()]++
		}
	}
	for kind, count := range map[string]int{"Service": 2, "EndpointSlice": 2, "APIService": 1, "StorageClass": 1} {
		if kinds[kind] != count {
			t.Errorf("%d of kind %s, want %d", kinds[kind], kind, count)
		}
	}
}

func TestTheDNSServerListensOnTheClustersAddressOnly(t *testing.T) {
	text := rendered(t)[corefileTemplate].String()
	if strings.Count(text, "bind 10.99.5.1\n") != strings.Count(text, "\n}\n") {
		t.Errorf("a server block binds elsewhere:\n%s", text)
	}
}
