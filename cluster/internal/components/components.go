// Package components holds the Kubernetes programs that this one binary can become: each is started as a process of its
// own, under its usual name and with its usual flags.
package components

import (
	"context"
	"os"
	"slices"

	"fanfold.dev/cluster/internal/provisioner"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind" // CoreDNS plugins register themselves: only those the Corefile names
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics on /metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // build info on /metrics
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
	metricsserver "sigs.k8s.io/metrics-server/cmd/metrics-server/app"
)

// programs maps a component's name to the function that runs it to its end and returns the exit code.
// Each one reads its own flags from os.Args.
var programs = map[string]func() int{
	"kube-apiserver":          cobraProgram(apiserver.NewAPIServerCommand),
	"kube-controller-manager": cobraProgram(controllermanager.NewControllerManagerCommand),
	"kube-proxy":              cobraProgram(proxy.NewProxyCommand),
	"kube-scheduler":          cobraProgram(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubelet":                 cobraProgram(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kubectl":                 cobraProgram(kubectl.NewDefaultKubectlCommand),
	"metrics-server": cobraProgram(func() *cobra.Command {
		return metricsserver.NewMetricsServerCommand(make(chan struct{}))
	}),
	"local-path-provisioner": cobraProgram(provisioner.NewCommand),
	"coredns":                func() int { coremain.Run(); return 0 },
	"etcd":                   func() int { etcdmain.Main(os.Args); return 0 },
}

func cobraProgram(newCommand func() *cobra.Command) func() int {
	return func() int { return cli.Run(newCommand()) }
}

// Names lists the components, sorted.
func Names() []string {
	names := make([]string, 0, len(programs))
	for name := range programs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Lookup gives the component's entry point, or false when there is none of that name.
func Lookup(name string) (func() int, bool) {
	run, ok := programs[name]
	return run, ok
}
