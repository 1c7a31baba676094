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
	"os/exec"
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

// Detach starts a command of this binary that outlives the caller, with its output in a fresh log.
func Detach(command *exec.Cmd, owner, component, logPath string, attributes *syscall.SysProcAttr) (pid int, err error) {
	if err := os.MkdirAll(filepath.Dir(logPath), 0o755); err != nil {
		return 0, fmt.Errorf("make the log folder: %w", err)
	}
	log, err := os.Create(logPath)
	if err != nil {
		return 0, fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()
	command.Args[0] = "fanfold-cluster"
	command.Env = Environment(owner, component)
	command.Stderr = log
	if command.Stdout == nil {
		command.Stdout = log
	}
	command.SysProcAttr = attributes
	if err := command.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", component, err)
	}
	return command.Process.Pid, nil
}

// Find lists the processes of an owner, lowest pid first. Processes whose environment may not be read are not ours.
func Find(owner string) ([]Process, error) {
	var found []Process
	err := each(func(pid int) {
		if component, ok := componentOf(pid, owner); ok {
			found = append(found, Process{PID: pid, Component: component})
		}
	})
	slices.SortFunc(found, func(a, b Process) int { return a.PID - b.PID })
	return found, err
}

// CountOthers counts the visible processes that are not the owner's: called in a node's process namespace, these are
// its containers' processes. Zombies and the kernel's own threads have no environment and don't count.
func CountOthers(owner string) (int, error) {
	count := 0
	err := each(func(pid int) {
		if _, ok := componentOf(pid, owner); ok {
			return
		}
		if environment, err := os.ReadFile(environmentFile(pid)); err == nil && len(environment) > 0 {
			count++
		}
	})
	return count, err
}

// each calls visit with the pid of every process but this one.
func each(visit func(pid int)) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && pid != os.Getpid() {
			visit(pid)
		}
	}
	return nil
}

func environmentFile(pid int) string { return filepath.Join("/proc", strconv.Itoa(pid), "environ") }

// componentOf tells which component of the owner a process belongs to; false when it is none (or has ended: the
// environment of a zombie is empty).
func componentOf(pid int, owner string) (string, bool) {
	environment, err := os.ReadFile(environmentFile(pid))
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

// End asks a component of the owner to end and waits until it has. A component that does not run is no error.
func End(ctx context.Context, owner, component string, grace time.Duration) error {
	asked := map[int]bool{}
	gone := wait.Goal{What: component + " to end", Limit: grace}
	return wait.Until(ctx, gone, func(context.Context) error {
		all, err := Find(owner)
		if err != nil {
			return wait.Fatal(err)
		}
		for _, p := range all {
			if p.Component != component {
				continue
			}
			if !asked[p.PID] {
				asked[p.PID] = true
				err = p.Signal(owner, syscall.SIGTERM)
			}
			return errors.Join(err, fmt.Errorf("process %d still runs", p.PID))
		}
		return nil
	})
}

// KillAll kills whatever runs of the owner.
func KillAll(ctx context.Context, owner string) error {
	gone := wait.Goal{What: "killed processes to vanish", Limit: killLimit}
	return wait.Until(ctx, gone, func(context.Context) error {
		all, err := Find(owner)
		if err != nil {
			return wait.Fatal(err)
		}
		for _, p := range all {
			err = errors.Join(err, p.Signal(owner, syscall.SIGKILL))
		}
		if len(all) > 0 {
			err = errors.Join(err, fmt.Errorf("%d still run, the first is %d (%s)", len(all), all[0].PID, all[0].Component))
		}
		return err
	})
}
