package supervise

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// family starts and reaps the children of this process. As init of a node's process namespace it also reaps the
// orphans that containerd's shims leave to it.
type family struct {
	mu       sync.Mutex
	children map[int]*child
	requests chan request
}

type child struct {
	pid    int
	done   chan struct{}      // closed when it has ended
	status syscall.WaitStatus // valid once done is closed
	family *family
}

type request struct {
	path      string
	argv      []string
	attr      *syscall.ProcAttr
	responses chan response
}

type response struct {
	child *child
	err   error
}

func newFamily() *family {
	f := &family{children: map[int]*child{}, requests: make(chan request)}
	deaths := make(chan os.Signal, 1)
	signal.Notify(deaths, syscall.SIGCHLD)
	go f.reap(deaths)
	go f.serve()
	return f
}

// serve forks on one thread that never ends: the kernel sends a child its parent-death signal when the *thread* that
// forked it ends.
func (f *family) serve() {
	runtime.LockOSThread()
	for r := range f.requests {
		f.mu.Lock() // so that a child that ends at once is known before it is reaped
		pid, err := syscall.ForkExec(r.path, r.argv, r.attr)
		c := &child{pid: pid, done: make(chan struct{}), family: f}
		if err == nil {
			f.children[pid] = c
		}
		f.mu.Unlock()
		r.responses <- response{c, err}
	}
}

// spawn starts a child in a process group of its own, so that an interrupt typed at a terminal reaches only the
// supervisor, and bound to die with it.
func (f *family) spawn(path string, argv, environment []string, log *os.File) (*child, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	attr := &syscall.ProcAttr{
		Env:   environment,
		Files: []uintptr{null.Fd(), log.Fd(), log.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	responses := make(chan response, 1)
	f.requests <- request{path, argv, attr, responses}
	r := <-responses
	return r.child, r.err
}

func (f *family) reap(deaths <-chan os.Signal) {
	for range deaths {
		for f.reapOne() {
		}
	}
}

// reapOne collects one ended child, if there is any.
func (f *family) reapOne() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	var status syscall.WaitStatus
	pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
	if err == syscall.EINTR {
		return true
	}
	if err != nil || pid <= 0 {
		return false
	}
	if c, ok := f.children[pid]; ok {
		delete(f.children, pid)
		c.status = status
		close(c.done)
	}
	return true
}

// signal sends a signal unless the child was reaped: until then its pid is its own.
func (c *child) signal(s syscall.Signal) {
	c.family.mu.Lock()
	defer c.family.mu.Unlock()
	if !c.hasEnded() {
		_ = syscall.Kill(c.pid, s) // fails only for a zombie about to be reaped
	}
}

func (c *child) hasEnded() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// describe says how an ended child ended.
func (c *child) describe() string {
	if c.status.Signaled() {
		return "killed by " + unix.SignalName(c.status.Signal())
	}
	return fmt.Sprintf("exit code %d", c.status.ExitStatus())
}
