// Package controlplane knows the programs that make up a Kubernetes control plane: their certificates, flags, order
// and signs of readiness.
package controlplane

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"fanfold.dev/cluster/internal/kubeconfig"
	"fanfold.dev/cluster/internal/pki"
)

// Config describes one control plane.
type Config struct {
	Name         string
	Dir          string       // absolute; the programs run in it, so that their sockets' paths stay short
	Address      netip.Addr   // all its servers listen here, and only here
	Ports        Ports        // one server each
	Services     netip.Prefix // range of the Services' cluster addresses
	Bare         bool         // no nodes: an API server to test against, whose data may be lost with the machine
	NoController bool         // leave out the controller manager (only where Bare)
}

// Ports of the servers.
type Ports struct{ API, Controllers, Scheduler int }

const (
	adminIdentity       = "admin"
	apiserverIdentity   = "kube-apiserver"
	kubeletClient       = "kube-apiserver-kubelet-client"
	frontProxyClient    = "front-proxy-client"
	controllersIdentity = "kube-controller-manager"
	schedulerIdentity   = "kube-scheduler"
	// Admins is the group that the API server lets do everything.
	Admins = "system:masters"
	// DNSDomain is the suffix of the cluster's own names.
	DNSDomain = "cluster.local"
)

// Store is where the keys are.
func (c Config) Store() pki.Store { return pki.Store{Dir: filepath.Join(c.Dir, "pki")} }

// Server is the API server's URL.
func (c Config) Server() string {
	return fmt.Sprintf("https://%s", netip.AddrPortFrom(c.Address, uint16(c.Ports.API)))
}

// AdminKubeconfig is the path of the kubeconfig for people.
func (c Config) AdminKubeconfig() string { return c.Kubeconfig(adminIdentity) }

// Kubeconfig is the path of an identity's kubeconfig.
func (c Config) Kubeconfig(identity string) string {
	return filepath.Join(c.Dir, identity+".kubeconfig")
}

// identities lists the certificates that the control plane itself needs.
func (c Config) identities() []pki.Identity {
	here := []netip.Addr{c.Address}
	identities := []pki.Identity{
		{
			Name: apiserverIdentity, User: apiserverIdentity, Server: true,
			Hosts: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + DNSDomain, "localhost"},
			IPs:   []netip.Addr{c.Address, c.Services.Masked().Addr().Next()},
		},
		{Name: kubeletClient, User: kubeletClient, Groups: []string{Admins}, Client: true},
		{Name: frontProxyClient, CA: pki.FrontProxyCA, User: frontProxyClient, Client: true},
		{Name: adminIdentity, User: adminIdentity, Groups: []string{Admins}, Client: true},
		{Name: controllersIdentity, User: "system:kube-controller-manager", IPs: here, Server: true, Client: true},
	}
	if !c.Bare {
		identities = append(identities,
			pki.Identity{Name: schedulerIdentity, User: "system:kube-scheduler", IPs: here, Server: true, Client: true})
	}
	return identities
}

// Prepare makes the folder, the certificates (these and the others given) and a kubeconfig for every client.
func (c Config) Prepare(others []pki.Identity, now Clock) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("make the control plane's folder: %w", err)
	}
	identities := append(c.identities(), others...)
	if _, err := c.Store().Ensure(identities, now()); err != nil {
		return err
	}
	for _, identity := range identities {
		if !identity.Client || identity.CA == pki.FrontProxyCA {
			continue
		}
		entry := kubeconfig.Entry{Cluster: c.Name, Server: c.Server(), Identity: identity.Name}
		if err := kubeconfig.Write(c.Kubeconfig(identity.Name), entry, c.Store()); err != nil {
			return err
		}
	}
	return nil
}
