package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"fanfold.dev/cluster/internal/addons"
	"fanfold.dev/cluster/internal/doctor"
	"fanfold.dev/cluster/internal/node"
	"fanfold.dev/cluster/internal/plan"
	"fanfold.dev/cluster/internal/process"
	"fanfold.dev/cluster/internal/supervise"
	"fanfold.dev/cluster/internal/wait"
)

const (
	socketLimit = time.Minute
	nodeLimit   = 2 * time.Minute
)

// Up starts what does not run of the cluster and waits until pods can run and find Services. It tells its progress
// line by line and returns the cluster's description.
func Up(ctx context.Context, options Options, output io.Writer) (plan.Cluster, error) {
	if err := doctor.Check(); err != nil {
		return plan.Cluster{}, err
	}
	cluster, err := create(options)
	if err != nil {
		return cluster, err
	}
	held, err := lock(cluster)
	if err != nil {
		return cluster, err
	}
	defer held.Close()
	alive, err := running(cluster)
	if err != nil {
		return cluster, err
	}
	p := &progress{output: output, last: time.Now()}
	if err := prepare(cluster); err != nil {
		return cluster, err
	}
	p.done("network, certificates")
	if !alive[supervisorComponent] {
		if err := startSupervisor(cluster); err != nil {
			return cluster, err
		}
	}
	return cluster, bringUp(ctx, cluster, alive, p)
}

// bringUp follows the control plane's start, starts the nodes as soon as there is an API server, and follows theirs.
func bringUp(ctx context.Context, cluster plan.Cluster, alive map[string]bool, p *progress) error {
	control, late := cluster.ControlPlane().Programs(), addons.Programs(cluster)
	const untilAPI = 2 // etcd and the API server
	if err := p.follow(ctx, cluster, control[:untilAPI]); err != nil {
		return err
	}
	pause, archive, err := pauseImage()
	if err != nil {
		return err
	}
	started := time.Now()
	for _, n := range cluster.AllNodes() {
		if alive[n.Name()] {
			continue
		}
		if err := startNode(n, pause); err != nil {
			return err
		}
	}
	if err := p.follow(ctx, cluster, append(control[untilAPI:], late...)); err != nil {
		return err
	}
	for _, n := range cluster.AllNodes() {
		since := started
		if alive[n.Name()] {
			since = time.Time{}
		}
		if err := p.followNode(ctx, n, since, pause, archive); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes what must be there before any program: interfaces, certificates, kubeconfigs.
func prepare(cluster plan.Cluster) error {
	if err := node.EnsureBridge(cluster); err != nil {
		return err
	}
	identities := append(node.Identities(cluster), addons.Identities(cluster)...)
	return cluster.ControlPlane().Prepare(identities, time.Now)
}

func supervisorLog(cluster plan.Cluster) string {
	return filepath.Join(cluster.LogDir(), supervisorComponent+".log")
}

func startSupervisor(cluster plan.Cluster) error {
	command := exec.Command("/proc/self/exe", "supervise", "--name", cluster.Name, "--state", cluster.State,
		"--slot", strconv.Itoa(cluster.Slot), "--nodes", strconv.Itoa(cluster.Nodes))
	_, err := process.Detach(command, cluster.Owner(), supervisorComponent, supervisorLog(cluster), &syscall.SysProcAttr{Setsid: true})
	return err
}

// Supervise keeps the control plane and the addons running until ctx ends.
func Supervise(ctx context.Context, cluster plan.Cluster) error {
	control := cluster.ControlPlane()
	if err := os.Chdir(control.Dir); err != nil {
		return fmt.Errorf("enter the control plane's folder: %w", err)
	}
	supervisor := supervise.New(supervise.Options{Owner: cluster.Owner(), LogDir: cluster.LogDir(), Restart: true})
	return supervisor.Run(ctx, append(control.Programs(), addons.Programs(cluster)...), func() {})
}

// progress tells how long each stage took.
type progress struct {
	output io.Writer
	last   time.Time
}

func (p *progress) done(stage string) {
	now := time.Now()
	fmt.Fprintf(p.output, "  %-28s %5.1f s\n", stage, now.Sub(p.last).Seconds())
	p.last = now
}

// follow waits for the supervisor's programs, one by one. None will come once the supervisor has ended.
func (p *progress) follow(ctx context.Context, cluster plan.Cluster, programs []supervise.Program) error {
	for _, program := range programs {
		goal := wait.Goal{What: program.Name, Limit: program.Limit, Log: filepath.Join(cluster.LogDir(), program.Name+".log")}
		check := unlessEnded(cluster, supervisorComponent, supervisorLog(cluster), program.Ready)
		if err := wait.Until(ctx, goal, check); err != nil {
			return err
		}
		p.done(program.Name)
	}
	return nil
}

// unlessEnded makes a check that fails for good once the component no longer runs, with that one's last words.
func unlessEnded(cluster plan.Cluster, component, log string, check func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		alive, err := running(cluster)
		if err != nil {
			return wait.Fatal(err)
		}
		if !alive[component] {
			return wait.Fatal(lastWords(component, log))
		}
		return check(ctx)
	}
}

// lastWords is the error with which a component of this binary ended: the last line of its log.
func lastWords(component, log string) error {
	data, err := os.ReadFile(log)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	words := strings.TrimPrefix(lines[len(lines)-1], "fanfold-cluster: ")
	if err != nil || words == "" {
		return fmt.Errorf("%s has ended: read %s", component, log)
	}
	return errors.New(words)
}

// followNode waits for containerd, gives it the pause image, and waits until pods can run.
func (p *progress) followNode(ctx context.Context, n plan.Node, since time.Time, pause string, archive []byte) error {
	await := func(what, log string, limit time.Duration, check func(context.Context) error) error {
		goal := wait.Goal{What: n.Name() + ": " + what, Log: n.Log(log), Limit: limit}
		if err := wait.Until(ctx, goal, unlessEnded(n.Cluster, n.Name(), n.Log("init"), check)); err != nil {
			return err
		}
		p.done(goal.What)
		return nil
	}
	if err := await("containerd", "containerd", socketLimit, func(context.Context) error {
		return importPause(ctx, n, pause, archive)
	}); err != nil {
		return err
	}
	if err := await("Services and DNS", "kube-proxy", nodeLimit, func(context.Context) error {
		_, err := os.Stat(n.Outside(plan.NodeReady))
		return err
	}); err != nil {
		return err
	}
	return await("node Ready", "kubelet", nodeLimit, func(ctx context.Context) error { return nodeReady(ctx, n, since) })
}
