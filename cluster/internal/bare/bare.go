// Package bare runs a control plane without nodes on a loopback address: a real API server to test against.
package bare

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"fanfold.dev/cluster/internal/controlplane"
	"fanfold.dev/cluster/internal/process"
	"fanfold.dev/cluster/internal/supervise"
	"golang.org/x/sys/unix"
)

// Options of a bare control plane.
type Options struct {
	State       string // folder of its data, certificates and logs
	Controllers bool   // run the controller manager too
}

const (
	// readyMark begins the line that tells a waiting program that the API server answers.
	readyMark = "READY kubeconfig="
	// upLimit bounds Up, over the limits of the single programs.
	upLimit = 5 * time.Minute
	// stopGrace covers the graces of all programs, one after the other.
	stopGrace = 25 * time.Second
	head      = "control-plane"
)

func owner(state string) string { return "control-plane:" + state }

func logDir(state string) string { return filepath.Join(state, "logs") }

// Run serves until ctx ends. It prints one line "READY kubeconfig=PATH" once the API server answers.
// A second one in the same folder is refused.
func Run(ctx context.Context, options Options, output io.Writer) error {
	state, err := prepare(options.State)
	if err != nil {
		return err
	}
	unlock, err := lock(state)
	if err != nil {
		return err
	}
	defer unlock()
	address := netip.MustParseAddr("127.0.0.1")
	ports, release, err := controlplane.ReservePorts(address)
	if err != nil {
		return err
	}
	defer release()
	config := controlplane.Config{
		Name: "control-plane", Dir: state, Address: address, Ports: ports,
		Services: netip.MustParsePrefix("10.96.0.0/16"), Bare: true, NoController: !options.Controllers,
	}
	if err := config.Prepare(nil, time.Now); err != nil {
		return err
	}
	if err := os.Chdir(config.Dir); err != nil {
		return fmt.Errorf("enter the state folder: %w", err)
	}
	supervisor := supervise.New(supervise.Options{Owner: owner(state), LogDir: logDir(state)})
	return supervisor.Run(ctx, config.Programs(), func() {
		fmt.Fprintf(output, "%s%s\n", readyMark, config.AdminKubeconfig())
	})
}

// prepare makes the state folder and returns its one true path, which names the owner of its processes.
func prepare(state string) (string, error) {
	if state == "" {
		return "", errors.New("say where to keep the data: --state DIR")
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return "", fmt.Errorf("make the state folder: %w", err)
	}
	return truePath(state)
}

func truePath(state string) (string, error) {
	absolute, err := filepath.Abs(state)
	if err != nil {
		return "", fmt.Errorf("state folder: %w", err)
	}
	return filepath.EvalSymlinks(absolute)
}

func lock(state string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(state, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state folder: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("a control plane already runs in %s: stop it or choose another --state", state)
	}
	return func() { file.Close() }, nil
}

// Up starts Run in the background, waits until it is ready, and returns the kubeconfig's path.
func Up(ctx context.Context, options Options) (string, error) {
	state, err := prepare(options.State)
	if err != nil {
		return "", err
	}
	command := exec.Command("/proc/self/exe", "control-plane", "run", "--state", state,
		fmt.Sprintf("--controller-manager=%t", options.Controllers))
	output, err := command.StdoutPipe()
	if err != nil {
		return "", fmt.Errorf("start the control plane: %w", err)
	}
	logPath := filepath.Join(logDir(state), head+".log")
	if _, err := process.Detach(command, owner(state), head, logPath, &syscall.SysProcAttr{Setsid: true}); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, upLimit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = command.Process.Kill() }) // its end closes the pipe
	defer stop()
	line, err := bufio.NewReader(output).ReadString('\n')
	if path, ok := strings.CutPrefix(strings.TrimSpace(line), readyMark); ok && err == nil {
		return path, nil
	}
	_ = command.Wait() // it has ended, or is being killed; why is in its log
	return "", fmt.Errorf("the control plane did not start: read %s", logPath)
}

// Down stops whatever runs of the control plane in this folder. One that does not run is no error.
func Down(ctx context.Context, state string) error {
	path, err := truePath(state)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ended := process.End(ctx, owner(path), head, stopGrace)
	if err := process.KillAll(ctx, owner(path)); err != nil {
		return errors.Join(ended, err)
	}
	return nil
}
