// Package process starts the programs of a cluster and finds them again. Each carries its owner's name in its
// environment, so whatever was killed half-way, what is left can be found, and nothing else is ever signalled: a
// recorded pid could meanwhile belong to a stranger, an environment cannot.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"fanfold.dev/cluster/internal/wait"
	"golang.org/x/sys/unix"
)

const (
	ownerVariable     = "FANFOLD_CLUSTER_OWNER"
	componentVariable = "FANFOLD_CLUSTER_COMPONENT"
)

// searchPath is given to every program: the node's programs call iptables, runc and mount, which live in sbin.
const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Process is a running program of an owner.
type Process struct {
	PID       int
	Component string // as given to Environment; inherited by what that component started
}

// Environment is all that a component's process gets: nothing of the caller's own environment, which may hold secrets.
func Environment(owner, component string) []string {
	return []string{searchPath, ownerVariable + "=" + owner, componentVariable + "=" + component}
}

// Find lists the processes of an owner, oldest pid first. Processes whose environment may not be read are not ours.
func Find(owner string) ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if component, ok := componentOf(pid, owner); ok {
			found = append(found, Process{PID: pid, Component: component})
		}
	}
	slices.SortFunc(found, func(a, b Process) int { return a.PID - b.PID })
	return found, nil
}

// componentOf tells which component of the owner a process belongs to; false when it is none (or has ended: the
// environment of a zombie is empty).
func componentOf(pid int, owner string) (string, bool) {
	environment, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return "", false
	}
	component, owned := "", false
	for variable := range bytes.SplitSeq(environment, []byte{0}) {
		name, value, _ := bytes.Cut(variable, []byte("="))
		switch string(name) {
		case ownerVariable:
			owned = string(value) == owner
		case componentVariable:
			component = string(value)
		}
	}
	return component, owned
}

// Signal sends a signal to the process if it is still the owner's: the pidfd is opened first and pins the process, so
// that a pid given to another one in between is noticed. A process that has ended is no error.
func (p Process) Signal(owner string, signal syscall.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if _, ok := componentOf(p.PID, owner); !ok {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d (%s): %w", p.PID, p.Component, err)
	}
	return nil
}

// killLimit bounds the wait for killed processes to vanish; a process stuck in the kernel outlives it.
const killLimit = 20 * time.Second

// Stop asks the owner's named components to end, waits up to grace until nothing of the owner runs, then kills
// whatever is left. Without components it kills at once.
func Stop(ctx context.Context, owner string, grace time.Duration, components ...string) error {
	if err := signalAll(owner, syscall.SIGTERM, components); err != nil {
		return err
	}
	if len(components) > 0 {
		gone := wait.Goal{What: "processes to end", Limit: grace}
		if wait.Until(ctx, gone, func(context.Context) error { return noneLeft(owner) }) == nil {
			return nil
		}
	}
	killed := wait.Goal{What: "killed processes to vanish", Limit: killLimit}
	return wait.Until(ctx, killed, func(context.Context) error {
		all, err := Find(owner)
		if err != nil {
			return wait.Fatal(err)
		}
		for _, p := range all {
			if err := p.Signal(owner, syscall.SIGKILL); err != nil {
				return wait.Fatal(err)
			}
		}
		return noneLeft(owner)
	})
}

func signalAll(owner string, signal syscall.Signal, components []string) error {
	all, err := Find(owner)
	if err != nil {
		return err
	}
	for _, p := range all {
		if slices.Contains(components, p.Component) {
			if err := p.Signal(owner, signal); err != nil {
				return err
			}
		}
	}
	return nil
}

func noneLeft(owner string) error {
	left, err := Find(owner)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("%d processes still run, the first is %d (%s)", len(left), left[0].PID, left[0].Component)
	}
	return nil
}
