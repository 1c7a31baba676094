package node

import (
	"bytes"
	"embed"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"text/template"

	"fanfold.dev/cluster/internal/controlplane"
	"fanfold.dev/cluster/internal/kubeconfig"
	"fanfold.dev/cluster/internal/pki"
	"fanfold.dev/cluster/internal/plan"
)

//go:embed config/*
var templates embed.FS

// proxyIdentity is shared by the kube-proxies: the API server's own rules let this user watch Services.
const proxyIdentity = "kube-proxy"

// kubeletIdentity is the name of a node's certificate in the control plane's store.
func kubeletIdentity(node plan.Node) string { return "kubelet-" + node.Name() }

// Identities lists the certificates that the nodes need.
func Identities(cluster plan.Cluster) []pki.Identity {
	identities := []pki.Identity{{Name: proxyIdentity, User: "system:kube-proxy", Client: true}}
	for _, node := range cluster.AllNodes() {
		identities = append(identities, pki.Identity{
			Name: kubeletIdentity(node), User: "system:node:" + node.Name(), Groups: []string{"system:nodes"},
			Hosts: []string{node.Name()}, IPs: []netip.Addr{node.Address()}, Server: true, Client: true,
		})
	}
	return identities
}

// WriteConfig lays out the folders and files that the node's programs read. pause is the image of the pods' sandboxes.
func WriteConfig(node plan.Node, pause string) error {
	folders := []string{node.Outside(plan.NodeConfig + "/cni"), node.Outside("/var/tmp"), node.Outside("/var/log"), VolumesDir(node), node.Run()}
	for _, folder := range folders {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("make the node's folders: %w", err)
		}
	}
	// As on any machine; the node's own /run, through the link.
	if err := os.Symlink("/run", node.Outside("/var/run")); err != nil && !os.IsExist(err) {
		return fmt.Errorf("make the node's folders: %w", err)
	}
	return writeFiles(node, pause)
}

func writeFiles(node plan.Node, pause string) error {
	if err := copyIdentity(node); err != nil {
		return err
	}
	values := map[string]any{
		"Node": node, "Config": plan.NodeConfig, "Socket": plan.NodeSocket, "Pause": pause,
		"DNS": node.Cluster.DNS(), "DNSDomain": controlplane.DNSDomain,
	}
	for file, source := range map[string]string{
		"containerd.toml": "containerd.toml", "kubelet.yaml": "kubelet.yaml",
		"resolv.conf": "resolv.conf", "cni/10-pods.conflist": "10-pods.conflist",
	} {
		if err := render(node.Outside(filepath.Join(plan.NodeConfig, file)), source, values); err != nil {
			return err
		}
	}
	return nil
}

// VolumesDir is the machine's path of the folder with the node's persistent volumes.
func VolumesDir(node plan.Node) string { return node.Outside(plan.NodeVolumes) }

func render(path, source string, values any) error {
	parsed, err := template.ParseFS(templates, "config/"+source)
	if err != nil {
		return fmt.Errorf("read template %s: %w", source, err)
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, values); err != nil {
		return fmt.Errorf("fill template %s: %w", source, err)
	}
	if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the node's configuration: %w", err)
	}
	return nil
}

// copyIdentity gives the node its own keys, and no others: it cannot see the control plane's folder if that is in /var.
func copyIdentity(node plan.Node) error {
	control := node.Cluster.ControlPlane()
	store, identity := control.Store(), kubeletIdentity(node)
	for target, source := range map[string]string{
		"ca.crt": store.Certificate(pki.ClusterCA), "kubelet.crt": store.Certificate(identity), "kubelet.key": store.Key(identity),
	} {
		data, err := os.ReadFile(source)
		if err != nil {
			return fmt.Errorf("copy the node's keys: %w", err)
		}
		if err := os.WriteFile(node.Outside(filepath.Join(plan.NodeConfig, target)), data, 0o600); err != nil {
			return fmt.Errorf("copy the node's keys: %w", err)
		}
	}
	for target, name := range map[string]string{"kubelet.kubeconfig": identity, "kube-proxy.kubeconfig": proxyIdentity} {
		entry := kubeconfig.Entry{Cluster: node.Cluster.Name, Server: control.Server(), Identity: name}
		if err := kubeconfig.Write(node.Outside(filepath.Join(plan.NodeConfig, target)), entry, store); err != nil {
			return err
		}
	}
	return nil
}
