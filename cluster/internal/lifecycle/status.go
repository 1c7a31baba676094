package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"fanfold.dev/cluster/internal/addons"
	"fanfold.dev/cluster/internal/plan"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// answerLimit bounds one request to the API server.
const answerLimit = 5 * time.Second

// ErrNotRunning says that nothing of the cluster runs.
var ErrNotRunning = errors.New("the cluster does not run")

func clientFor(cluster plan.Cluster) (*kubernetes.Clientset, error) {
	config, err := clientcmd.BuildConfigFromFlags("", cluster.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.Timeout = answerLimit
	return kubernetes.NewForConfig(config)
}

// nodeReady tells whether the API server has the node as Ready by a report made at or after since: what an earlier run
// reported says nothing.
func nodeReady(ctx context.Context, n plan.Node, since time.Time) error {
	client, err := clientFor(n.Cluster)
	if err != nil {
		return err
	}
	object, err := client.CoreV1().Nodes().Get(ctx, n.Name(), metav1.GetOptions{})
	if err != nil {
		return err
	}
	return readyIn(object.Status.Conditions, since)
}

func readyIn(conditions []corev1.NodeCondition, since time.Time) error {
	i := slices.IndexFunc(conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
	switch {
	case i < 0:
		return errors.New("the node has not reported yet")
	case conditions[i].LastHeartbeatTime.Time.Before(since.Truncate(time.Second)): // reports have whole seconds
		return errors.New("the node has not reported since its start")
	case conditions[i].Status != corev1.ConditionTrue:
		return fmt.Errorf("the node is not ready: %s", conditions[i].Message)
	}
	return nil
}

// Describe prints where things are.
func Describe(cluster plan.Cluster, output io.Writer) {
	var nodes []string
	for _, n := range cluster.AllNodes() {
		nodes = append(nodes, fmt.Sprintf("%s %s", n.Name(), n.Address()))
	}
	fmt.Fprintf(output, "cluster     %s\n", cluster.Name)
	fmt.Fprintf(output, "API server  %s\n", cluster.ControlPlane().Server())
	fmt.Fprintf(output, "nodes       %s (NodePorts answer there)\n", strings.Join(nodes, ", "))
	fmt.Fprintf(output, "pods        %s (reachable from this machine)\n", cluster.Pods())
	fmt.Fprintf(output, "logs        %s\n", cluster.LogDir())
	fmt.Fprintf(output, "kubeconfig  %s\n", cluster.Kubeconfig())
}

// Status prints what runs. It returns ErrNotRunning when nothing does, another error when something is amiss.
func Status(ctx context.Context, options Options, output io.Writer) error {
	cluster, _, err := find(options)
	if err != nil {
		return err
	}
	alive, err := running(cluster)
	if err != nil {
		return err
	}
	if len(alive) == 0 {
		return fmt.Errorf("%w: start it with fanfold-cluster up", ErrNotRunning)
	}
	Describe(cluster, output)
	var problems []error
	report := func(name string, err error) {
		verdict := "ok"
		if err != nil {
			verdict = err.Error()
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
		}
		fmt.Fprintf(output, "  %-24s %s\n", name, verdict)
	}
	for _, program := range append(cluster.ControlPlane().Programs(), addons.Programs(cluster)...) {
		report(program.Name, unlessDead(alive[program.Name], func() error { return program.Ready(ctx) }))
	}
	for _, n := range cluster.AllNodes() {
		report(n.Name(), unlessDead(alive[n.Name()], func() error { return nodeReady(ctx, n, time.Time{}) }))
	}
	if len(problems) > 0 {
		return fmt.Errorf("%d of the cluster's parts are not well: read their logs in %s", len(problems), cluster.LogDir())
	}
	return nil
}

// unlessDead asks only what runs: the API server calls a node ready for a while after it died.
func unlessDead(alive bool, check func() error) error {
	if !alive {
		return errors.New("does not run")
	}
	return check()
}
