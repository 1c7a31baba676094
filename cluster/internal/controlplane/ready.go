package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"fanfold.dev/cluster/internal/pki"
)

// Clock gives the time; a parameter, so that tests can move it.
type Clock func() time.Time

// answerLimit bounds a single question to a server that may be starting.
const answerLimit = 5 * time.Second

func (c Config) etcdReady(ctx context.Context) error {
	socket, release, err := shortPath(c.Dir, etcdSocket)
	if err != nil {
		return err
	}
	defer release()
	dialer := net.Dialer{}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
	}
	return get(ctx, transport, "http://etcd/health")
}

// shortPath names a file by its open folder: a socket's path must be short, a state folder's may be long.
func shortPath(dir, name string) (string, func(), error) {
	folder, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return filepath.Join("/proc/self/fd", fmt.Sprint(folder.Fd()), name), func() { folder.Close() }, nil
}

func (c Config) apiserverReady(ctx context.Context) error {
	return c.ask(ctx, c.Ports.API, "/readyz")
}

// controllersReady also asks for a sign of work done: without its service account no pod can be made in a namespace.
func (c Config) controllersReady(ctx context.Context) error {
	if err := c.ask(ctx, c.Ports.Controllers, "/healthz"); err != nil {
		return err
	}
	return c.ask(ctx, c.Ports.API, "/api/v1/namespaces/default/serviceaccounts/default")
}

func (c Config) schedulerReady(ctx context.Context) error {
	return c.ask(ctx, c.Ports.Scheduler, "/healthz")
}

// ask gets a path as admin from one of the control plane's servers; anything but 200 is an error.
func (c Config) ask(ctx context.Context, port int, path string) error {
	store := c.Store()
	authority, err := os.ReadFile(store.Certificate(pki.ClusterCA))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	admin, err := tls.LoadX509KeyPair(store.Certificate(adminIdentity), store.Key(adminIdentity))
	if err != nil {
		return err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{admin}, MinVersion: tls.VersionTLS13},
	}
	return get(ctx, transport, fmt.Sprintf("https://%s%s", netip.AddrPortFrom(c.Address, uint16(port)), path))
}

func get(ctx context.Context, transport *http.Transport, url string) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	detail, _ := io.ReadAll(io.LimitReader(response.Body, 300)) // only to describe the refusal
	return fmt.Errorf("%s answers %s: %s", url, response.Status, detail)
}
