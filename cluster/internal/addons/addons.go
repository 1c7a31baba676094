// Package addons has what a usable cluster needs beyond Kubernetes itself: DNS, resource metrics and volumes. They run
// on the machine, beside the control plane, as users of the API server with no more rights than each needs.
package addons

import (
	"bytes"
	"context"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"text/template"
	"time"

	"fanfold.dev/cluster/internal/controlplane"
	"fanfold.dev/cluster/internal/node"
	"fanfold.dev/cluster/internal/pki"
	"fanfold.dev/cluster/internal/plan"
	"fanfold.dev/cluster/internal/provisioner"
	"fanfold.dev/cluster/internal/supervise"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
)

//go:embed manifests/*
var manifests embed.FS

const (
	dnsIdentity     = "coredns"
	metricsIdentity = "metrics-server"
	volumesIdentity = "local-path-provisioner"
	dnsReadyPort    = 8181
	startLimit      = time.Minute
	fieldManager    = "fanfold-cluster"
	// corefileTemplate is CoreDNS's configuration; the other templates are manifests.
	corefileTemplate = "Corefile"
)

// Identities lists the certificates that the addons need.
func Identities(cluster plan.Cluster) []pki.Identity {
	return []pki.Identity{
		{Name: dnsIdentity, User: "system:coredns", Client: true},
		{Name: volumesIdentity, User: "system:local-path-provisioner", Client: true},
		{
			Name: metricsIdentity, User: "system:metrics-server", Client: true, Server: true,
			Hosts: []string{"metrics-server.kube-system.svc"}, IPs: []netip.Addr{cluster.Host()},
		},
	}
}

// Programs lists the addons in the order of start; what they need in the API server is put there first.
func Programs(cluster plan.Cluster) []supervise.Program {
	return []supervise.Program{
		{
			Name: "coredns", Args: []string{"-conf", corefile(cluster)}, Limit: startLimit,
			Before: func(ctx context.Context) error { return prepare(ctx, cluster) },
			Ready:  func(ctx context.Context) error { return node.Resolve(ctx, dnsAddress(cluster)) },
		},
		{Name: volumesIdentity, Args: provisionerFlags(cluster), Limit: startLimit, Ready: started},
		{Name: "metrics-server", Args: metricsFlags(cluster), Limit: startLimit, Ready: started},
	}
}

// started is the sign of programs that nothing in the cluster's start waits for.
func started(context.Context) error { return nil }

func dnsAddress(cluster plan.Cluster) string {
	return net.JoinHostPort(cluster.Host().String(), strconv.Itoa(plan.DNSPort))
}

func corefile(cluster plan.Cluster) string {
	return filepath.Join(cluster.ControlPlane().Dir, "Corefile")
}

func provisionerFlags(cluster plan.Cluster) []string {
	flags := []string{"--kubeconfig=" + cluster.ControlPlane().Kubeconfig(volumesIdentity), "--path=" + plan.NodeVolumes}
	for _, n := range cluster.AllNodes() {
		flags = append(flags, "--node="+n.Name()+"="+node.VolumesDir(n))
	}
	return flags
}

func metricsFlags(cluster plan.Cluster) []string {
	control := cluster.ControlPlane()
	file, store := control.Kubeconfig(metricsIdentity), control.Store()
	return []string{
		"--kubeconfig=" + file,
		"--authentication-kubeconfig=" + file,
		"--authorization-kubeconfig=" + file,
		fmt.Sprintf("--bind-address=%s", cluster.Host()),
		fmt.Sprintf("--secure-port=%d", plan.MetricsPort),
		"--tls-cert-file=" + store.Certificate(metricsIdentity),
		"--tls-private-key-file=" + store.Key(metricsIdentity),
		"--kubelet-certificate-authority=" + store.Certificate(pki.ClusterCA),
		"--kubelet-preferred-address-types=InternalIP",
		"--metric-resolution=10s",
		"--kubelet-request-timeout=5s",
	}
}

// prepare writes the DNS server's configuration and applies the manifests.
func prepare(ctx context.Context, cluster plan.Cluster) error {
	texts, err := render(cluster)
	if err != nil {
		return err
	}
	for name, text := range texts {
		if name == corefileTemplate {
			err = os.WriteFile(corefile(cluster), text.Bytes(), 0o644)
		} else {
			err = apply(ctx, cluster.Kubeconfig(), text)
		}
		if err != nil {
			return fmt.Errorf("put %s in place: %w", name, err)
		}
	}
	return nil
}

// render fills every template; the result is by file name.
func render(cluster plan.Cluster) (map[string]*bytes.Buffer, error) {
	control := cluster.ControlPlane()
	authority, err := os.ReadFile(control.Store().Certificate(pki.ClusterCA))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's CA: %w", err)
	}
	parsed, err := template.ParseFS(manifests, "manifests/*")
	if err != nil {
		return nil, fmt.Errorf("read the manifests: %w", err)
	}
	values := map[string]any{
		"Cluster": cluster, "DNSPort": plan.DNSPort, "DNSReadyPort": dnsReadyPort, "DNSDomain": controlplane.DNSDomain,
		"DNSKubeconfig": control.Kubeconfig(dnsIdentity), "MetricsPort": plan.MetricsPort,
		"CABundle": base64.StdEncoding.EncodeToString(authority), "Provisioner": provisioner.Name,
	}
	texts := map[string]*bytes.Buffer{}
	for _, manifest := range parsed.Templates() {
		texts[manifest.Name()] = &bytes.Buffer{}
		if err := manifest.Execute(texts[manifest.Name()], values); err != nil {
			return nil, fmt.Errorf("fill %s: %w", manifest.Name(), err)
		}
	}
	return texts, nil
}

// apply brings every object of a YAML stream into the API server.
func apply(ctx context.Context, kubeconfig string, stream io.Reader) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	decoder := yaml.NewYAMLOrJSONDecoder(stream, 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		// The guessed plural is right for every kind that the manifests have.
		resource, _ := meta.UnsafeGuessKindToResource(object.GroupVersionKind())
		options := metav1.ApplyOptions{FieldManager: fieldManager, Force: true}
		target := client.Resource(resource).Namespace(object.GetNamespace())
		if _, err := target.Apply(ctx, object.GetName(), object, options); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}
