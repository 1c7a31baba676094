package controlplane

import (
	"fmt"
	"time"

	"fanfold.dev/cluster/internal/pki"
	"fanfold.dev/cluster/internal/supervise"
)

const (
	// etcdSocket keeps etcd off the network: only who may enter the control plane's folder reaches it, and no port
	// can collide. Relative to that folder, since a socket's path is limited to 107 bytes.
	etcdSocket     = "etcd.sock"
	etcdPeerSocket = "etcd-peer.sock"

	// startLimit is generous: on a busy machine of two cores the API server took half a minute.
	startLimit = 2 * time.Minute
	// etcdGrace lets etcd write down what it has.
	etcdGrace = 10 * time.Second
)

// Programs lists what runs, in the order of start.
func (c Config) Programs() []supervise.Program {
	programs := []supervise.Program{
		{Name: "etcd", Args: c.etcdFlags(), Ready: c.etcdReady, Limit: startLimit, Grace: etcdGrace},
		{Name: "kube-apiserver", Args: c.apiserverFlags(), Ready: c.apiserverReady, Limit: startLimit},
	}
	if !c.NoController {
		programs = append(programs, supervise.Program{
			Name: "kube-controller-manager", Args: c.controllerFlags(), Ready: c.controllersReady, Limit: startLimit,
		})
	}
	if !c.Bare {
		programs = append(programs, supervise.Program{
			Name: "kube-scheduler", Args: c.schedulerFlags(), Ready: c.schedulerReady, Limit: startLimit,
		})
	}
	return programs
}

func (c Config) etcdFlags() []string {
	flags := []string{
		"--data-dir=etcd",
		"--listen-client-urls=unix://" + etcdSocket,
		"--advertise-client-urls=unix://" + etcdSocket,
		"--listen-peer-urls=unix://" + etcdPeerSocket,
		"--initial-advertise-peer-urls=unix://" + etcdPeerSocket,
		"--initial-cluster=default=unix://" + etcdPeerSocket,
		"--enable-grpc-gateway=false",
		"--log-level=warn",
	}
	if c.Bare {
		flags = append(flags, "--unsafe-no-fsync")
	}
	return flags
}

func (c Config) apiserverFlags() []string {
	store := c.Store()
	flags := []string{
		"--etcd-servers=unix://" + etcdSocket,
		fmt.Sprintf("--bind-address=%s", c.Address),
		fmt.Sprintf("--advertise-address=%s", c.Address),
		fmt.Sprintf("--secure-port=%d", c.Ports.API),
		fmt.Sprintf("--service-cluster-ip-range=%s", c.Services),
		"--tls-cert-file=" + store.Certificate(apiserverIdentity),
		"--tls-private-key-file=" + store.Key(apiserverIdentity),
		"--client-ca-file=" + store.Certificate(pki.ClusterCA),
		"--service-account-issuer=https://kubernetes.default.svc." + DNSDomain,
		"--service-account-key-file=" + store.PublicKey(),
		"--service-account-signing-key-file=" + store.Key(pki.ServiceAccount),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--profiling=false",
	}
	flags = append(flags, c.aggregationFlags()...)
	if c.Bare {
		return append(flags, c.bareFlags()...)
	}
	return append(flags,
		"--kubelet-client-certificate="+store.Certificate(kubeletClient),
		"--kubelet-client-key="+store.Key(kubeletClient),
		"--kubelet-certificate-authority="+store.Certificate(pki.ClusterCA),
		"--kubelet-preferred-address-types=InternalIP",
	)
}

// aggregationFlags let extension API servers (metrics-server) and webhooks be reached. This API server runs outside the
// nodes, where no Service address leads anywhere, so it calls a Service's endpoints themselves.
func (c Config) aggregationFlags() []string {
	store := c.Store()
	return []string{
		"--enable-aggregator-routing=true",
		"--proxy-client-cert-file=" + store.Certificate(frontProxyClient),
		"--proxy-client-key-file=" + store.Key(frontProxyClient),
		"--requestheader-client-ca-file=" + store.Certificate(pki.FrontProxyCA),
		"--requestheader-allowed-names=" + frontProxyClient,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
	}
}

// bareFlags suit an API server on a loopback address: nothing to announce to pods, and its port is one that the
// starting process still holds. Without controllers nobody makes service accounts, so none may be demanded.
func (c Config) bareFlags() []string {
	flags := []string{"--endpoint-reconciler-type=none", "--permit-port-sharing=true"}
	if c.NoController {
		flags = append(flags, "--disable-admission-plugins=ServiceAccount")
	}
	return flags
}

func (c Config) controllerFlags() []string {
	store := c.Store()
	return append(c.clientFlags(controllersIdentity, c.Ports.Controllers),
		"--use-service-account-credentials=true",
		"--root-ca-file="+store.Certificate(pki.ClusterCA),
		"--service-account-private-key-file="+store.Key(pki.ServiceAccount),
		"--cluster-signing-cert-file="+store.Certificate(pki.ClusterCA),
		"--cluster-signing-key-file="+store.Key(pki.ClusterCA),
		"--horizontal-pod-autoscaler-sync-period=5s",
		// The defaults (5 min and 30 s) keep a demo from scaling for as long after each pod's start.
		"--horizontal-pod-autoscaler-cpu-initialization-period=30s",
		"--horizontal-pod-autoscaler-initial-readiness-delay=5s",
		// There is only ever one, but without a lease it would live through a while without the API server and then take
		// the silence for that of the nodes: all pods not ready, every Service refused. One that lost its lease ends, and
		// its successor gives the nodes their time anew. Every cluster that kubeadm makes does so.
		fmt.Sprintf("--leader-elect=%t", !c.Bare),
	)
}

func (c Config) schedulerFlags() []string {
	return append(c.clientFlags(schedulerIdentity, c.Ports.Scheduler), "--leader-elect=false")
}

// clientFlags are common to the controller manager and the scheduler, of which there is only ever one.
func (c Config) clientFlags(identity string, port int) []string {
	file, store := c.Kubeconfig(identity), c.Store()
	flags := []string{
		"--kubeconfig=" + file,
		"--authentication-kubeconfig=" + file,
		"--authorization-kubeconfig=" + file,
		fmt.Sprintf("--bind-address=%s", c.Address),
		fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + store.Certificate(identity),
		"--tls-private-key-file=" + store.Key(identity),
		"--profiling=false",
		"--kube-api-qps=200",
		"--kube-api-burst=400",
	}
	if c.Bare {
		flags = append(flags, "--permit-port-sharing=true")
	}
	return flags
}
