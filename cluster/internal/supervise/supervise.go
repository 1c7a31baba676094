// Package supervise runs a list of programs as children: started in order, each once the one before is ready, logged to
// a file each, restarted when they end, stopped in reverse order.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"fanfold.dev/cluster/internal/process"
	"fanfold.dev/cluster/internal/wait"
)

// Program is one child.
type Program struct {
	Name string
	Path string   // executable; empty: this very binary, which becomes the program by its name
	Args []string // after the name
	// Before, if there, runs once before the first start and within the same Limit.
	Before func(context.Context) error
	Ready  func(context.Context) error
	Limit  time.Duration // until Ready, the first time
	Grace  time.Duration // from SIGTERM to SIGKILL; zero: defaultGrace
}

const (
	// defaultGrace is what the stateless programs get to say goodbye.
	defaultGrace = 3 * time.Second
	firstBackoff = 200 * time.Millisecond
	longestPause = 10 * time.Second
	// healthyAfter is how long a program must have run for its next end to count as the first again.
	healthyAfter = time.Minute
)

// Options say whose programs these are and how they are kept.
type Options struct {
	Owner   string // see process.Environment
	LogDir  string
	ShownAs string // the log folder's path for readers of messages, where that is another; else empty
	Restart bool   // else the first program that ends, ends them all
}

// Supervisor runs programs.
type Supervisor struct {
	options Options
	family  *family
	failed  chan error
}

// New takes over the duty to reap every child of this process: there must be one supervisor in it, and no other code
// there may wait for children.
func New(options Options) *Supervisor {
	return &Supervisor{options: options, family: newFamily(), failed: make(chan error, 1)}
}

// Run starts the programs, calls ready, and returns when ctx ends (nil) or a program could not be started or kept;
// either way it has stopped them all.
func (s *Supervisor) Run(ctx context.Context, programs []Program, ready func()) error {
	var started []*keeper
	defer func() {
		for i := len(started) - 1; i >= 0; i-- {
			started[i].stop()
		}
	}()
	for _, program := range programs {
		k, err := s.start(ctx, program)
		if k != nil {
			started = append(started, k)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
	ready()
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

// start runs a program and waits until it is ready. One that ends before was refused something, most likely a flag:
// waiting for it would be pointless.
func (s *Supervisor) start(ctx context.Context, program Program) (*keeper, error) {
	if err := before(ctx, program); err != nil {
		return nil, err
	}
	log, err := openLog(s.logFile(program.Name))
	if err != nil {
		return nil, err
	}
	kept, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k := &keeper{supervisor: s, program: program, log: log, cancel: cancel, ended: make(chan struct{})}
	first, err := k.spawn()
	if err != nil {
		cancel()
		log.Close()
		return nil, err
	}
	goal := wait.Goal{What: program.Name, Log: s.shownLog(program.Name), Limit: program.Limit}
	err = wait.Until(ctx, goal, func(ctx context.Context) error {
		if first.hasEnded() {
			return wait.Fatal(fmt.Errorf("%s ended (%s) before it was ready: read %s", program.Name, first.describe(), s.shownLog(program.Name)))
		}
		return program.Ready(ctx)
	})
	go k.keep(kept, first)
	return k, err
}

func before(ctx context.Context, program Program) error {
	if program.Before == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, program.Limit)
	defer cancel()
	if err := program.Before(ctx); err != nil {
		return fmt.Errorf("prepare %s: %w", program.Name, err)
	}
	return nil
}

// logFile is where a program's output goes.
func (s *Supervisor) logFile(name string) string {
	return filepath.Join(s.options.LogDir, name+".log")
}

// shownLog is where a person finds it.
func (s *Supervisor) shownLog(name string) string {
	if s.options.ShownAs == "" {
		return s.logFile(name)
	}
	return filepath.Join(s.options.ShownAs, name+".log")
}

// openLog starts a fresh log and keeps the last run's beside it.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the log folder: %w", err)
	}
	if err := os.Rename(path, path+".previous"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("keep the last log: %w", err)
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return log, nil
}

// keeper keeps one program running.
type keeper struct {
	supervisor *Supervisor
	program    Program
	log        *os.File
	cancel     context.CancelFunc // ends keep
	ended      chan struct{}      // closed once the program runs no more and will not again
}

func (k *keeper) spawn() (*child, error) {
	path := k.program.Path
	if path == "" {
		path = "/proc/self/exe"
	}
	argv := append([]string{k.program.Name}, k.program.Args...)
	environment := process.Environment(k.supervisor.options.Owner, k.program.Name)
	c, err := k.supervisor.family.spawn(path, argv, environment, k.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", k.program.Name, err)
	}
	return c, nil
}

// keep waits for the program's end and starts it again, until ctx ends; then it stops the program.
func (k *keeper) keep(ctx context.Context, running *child) {
	defer close(k.ended)
	defer k.log.Close()
	pause := firstBackoff
	for {
		since := time.Now()
		select {
		case <-ctx.Done():
			k.end(running)
			return
		case <-running.done:
		}
		failure := fmt.Errorf("%s ended (%s): read %s", k.program.Name, running.describe(), k.supervisor.shownLog(k.program.Name))
		if !k.supervisor.options.Restart {
			k.supervisor.fail(failure)
			return
		}
		if time.Since(since) > healthyAfter {
			pause = firstBackoff
		}
		fmt.Fprintf(os.Stderr, "%s; starting it again in %s\n", failure, pause)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
		next, err := k.spawn()
		if err != nil {
			k.supervisor.fail(err)
			return
		}
		running = next
	}
}

// fail reports the first failure that ends the run; later ones are its consequences.
func (s *Supervisor) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// end asks the child to end and kills it when its grace is over.
func (k *keeper) end(running *child) {
	grace := k.program.Grace
	if grace == 0 {
		grace = defaultGrace
	}
	running.signal(syscall.SIGTERM)
	select {
	case <-running.done:
	case <-time.After(grace):
		running.signal(syscall.SIGKILL)
		<-running.done
	}
}

// stop ends the program and returns when it has ended.
func (k *keeper) stop() {
	k.cancel()
	<-k.ended
}
