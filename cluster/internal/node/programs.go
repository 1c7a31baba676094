package node

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"fanfold.dev/cluster/internal/controlplane"
	"fanfold.dev/cluster/internal/plan"
	"fanfold.dev/cluster/internal/supervise"
	"github.com/miekg/dns"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	kubeletHealth = "127.0.0.1:10248"
	proxyHealth   = "127.0.0.1:10256"
	proxyMetrics  = "127.0.0.1:10249"
	// answerLimit bounds one question to a program that may be starting.
	answerLimit = 2 * time.Second
)

// programs lists what a node runs, in the order of start.
func programs(node plan.Node) []supervise.Program {
	return []supervise.Program{
		{
			Name: "containerd", Path: "/usr/bin/containerd", Limit: startLimit, Ready: containerdReady,
			Args: []string{"--config", filepath.Join(plan.NodeConfig, "containerd.toml")},
		},
		{Name: "kubelet", Args: kubeletFlags(node), Limit: startLimit, Ready: healthy(kubeletHealth)},
		{Name: "kube-proxy", Args: proxyFlags(node), Limit: startLimit, Ready: servicesReady(node.Cluster)},
	}
}

func kubeletFlags(node plan.Node) []string {
	return []string{
		"--config=" + filepath.Join(plan.NodeConfig, "kubelet.yaml"),
		"--kubeconfig=" + filepath.Join(plan.NodeConfig, "kubelet.kubeconfig"),
		"--hostname-override=" + node.Name(),
		fmt.Sprintf("--node-ip=%s", node.Address()),
		fmt.Sprintf("--node-labels=topology.kubernetes.io/region=local,topology.kubernetes.io/zone=zone-%d", node.Number),
	}
}

// proxyFlags leave the machine's connection tracking limits alone: a node's network namespace may not set them.
func proxyFlags(node plan.Node) []string {
	return []string{
		"--kubeconfig=" + filepath.Join(plan.NodeConfig, "kube-proxy.kubeconfig"),
		"--hostname-override=" + node.Name(),
		fmt.Sprintf("--cluster-cidr=%s", node.Cluster.Pods()),
		"--proxy-mode=iptables",
		"--iptables-min-sync-period=100ms",
		"--conntrack-max-per-core=0",
		"--conntrack-min=0",
		"--conntrack-tcp-timeout-established=0s",
		"--conntrack-tcp-timeout-close-wait=0s",
		"--healthz-bind-address=" + proxyHealth,
		"--metrics-bind-address=" + proxyMetrics,
	}
}

// containerdReady asks what the kubelet asks first and ends over: the socket is there before its server is.
func containerdReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+plan.NodeSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = runtime.NewRuntimeServiceClient(connection).Version(ctx, &runtime.VersionRequest{})
	return err
}

func healthy(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, answerLimit)
		defer cancel()
		url := "http://" + address + "/healthz"
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, response.Status)
		}
		return nil
	}
}

// servicesReady asks for the API server's own name at the address that pods ask: it needs kube-proxy's rules, the way
// out of the node, and the DNS server, and so it is what a pod needs.
func servicesReady(cluster plan.Cluster) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := healthy(proxyHealth)(ctx); err != nil {
			return err
		}
		return Resolve(ctx, net.JoinHostPort(cluster.DNS().String(), "53"))
	}
}

// Resolve asks the DNS server at an address for a name that every cluster has.
func Resolve(ctx context.Context, server string) error {
	question := new(dns.Msg)
	question.SetQuestion("kubernetes.default.svc."+controlplane.DNSDomain+".", dns.TypeA)
	client := dns.Client{Timeout: answerLimit}
	answer, _, err := client.ExchangeContext(ctx, question, server)
	if err != nil {
		return err
	}
	if len(answer.Answer) == 0 {
		return fmt.Errorf("DNS at %s knows no %s", server, question.Question[0].Name)
	}
	return nil
}

// markReady tells the machine that pods can run here and find Services.
func markReady() {
	if err := os.WriteFile(plan.NodeReady, nil, 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "mark the node ready:", err)
	}
}
