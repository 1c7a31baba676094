package process

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// owner is unique to a test run: other runs' processes are not ours to see.
func owner(t *testing.T) string {
	t.Helper()
	return "test:" + t.Name() + ":" + filepath.Base(t.TempDir()) + ":" + time.Now().Format(time.RFC3339Nano)
}

// start runs a shell command as a component until the test ends.
func start(t *testing.T, script string, environment []string) *exec.Cmd {
	t.Helper()
	command := exec.Command("/bin/sh", "-c", script)
	command.Env = environment
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = command.Wait() }() // reaped at once, so that its end shows
	t.Cleanup(func() {
		_ = command.Process.Kill()
		<-ended
	})
	return command
}

func find(t *testing.T, owner string) []Process {
	t.Helper()
	found, err := Find(owner)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestOnlyTheOwnersProcessesAreFound(t *testing.T) {
	ours := owner(t)
	mine := start(t, "sleep 60", Environment(ours, "etcd"))
	start(t, "sleep 60", Environment(ours+"-longer", "etcd"))
	start(t, "sleep 60", []string{"X=" + ownerVariable + "=" + ours})
	found := find(t, ours)
	if len(found) == 0 || found[0] != (Process{PID: mine.Process.Pid, Component: "etcd"}) {
		t.Fatalf("found %+v, want pid %d", found, mine.Process.Pid)
	}
}

func TestASignalDoesNotReachAProcessOfAnotherOwner(t *testing.T) {
	stranger := start(t, "sleep 60", []string{"HOME=/"})
	reused := Process{PID: stranger.Process.Pid, Component: "etcd"}
	if err := reused.Signal(owner(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatalf("the stranger was killed: %v", err)
	}
}

func TestSignallingWhatHasEndedIsNoError(t *testing.T) {
	gone := exec.Command("/bin/true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	if err := (Process{PID: gone.Process.Pid}).Signal(owner(t), syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}

func TestEndAsksOneComponentAndLeavesTheOthers(t *testing.T) {
	ours := owner(t)
	start(t, "exec sleep 60", Environment(ours, "node"))
	other := start(t, "exec sleep 60", Environment(ours, "supervisor"))
	if err := End(t.Context(), ours, "node", 10*time.Second); err != nil {
		t.Fatal(err)
	}
	left := find(t, ours)
	if len(left) != 1 || left[0].PID != other.Process.Pid {
		t.Fatalf("left are %+v, want pid %d", left, other.Process.Pid)
	}
}

func TestKillAllEndsWhatRefusesToEndAndWhatItStarted(t *testing.T) {
	ours := owner(t)
	start(t, "trap '' TERM; sleep 61 & sleep 62", Environment(ours, "stubborn"))
	deadline := time.Now().Add(10 * time.Second)
	for len(find(t, ours)) < 3 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := End(short, ours, "stubborn", time.Minute); err == nil {
		t.Error("End says that the stubborn process has ended")
	}
	if err := KillAll(t.Context(), ours); err != nil {
		t.Fatal(err)
	}
	if left := find(t, ours); left != nil {
		t.Fatalf("left are %+v", left)
	}
}

func TestComponentsGetNothingOfTheCallersEnvironment(t *testing.T) {
	t.Setenv("SECRET", "hunter2")
	for _, variable := range Environment("o", "c") {
		if strings.Contains(variable, "hunter2") {
			t.Errorf("%s is handed on", variable)
		}
	}
}

func TestDetachKeepsTheOutputInTheLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "logs", "hello.log")
	command := exec.Command("/bin/sh", "-c", "echo hello; echo trouble >&2")
	if _, err := Detach(command, owner(t), "hello", log, &syscall.SysProcAttr{Setsid: true}); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(log); err != nil || string(text) != "hello\ntrouble\n" {
		t.Errorf("the log holds %q (%v)", text, err)
	}
}
