package supervise

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// One supervisor reaps all children of a process, so the tests share its family.
var shared = newFamily()

func supervisor(t *testing.T, restart bool) *Supervisor {
	t.Helper()
	options := Options{Owner: "test:" + t.Name(), LogDir: t.TempDir(), Restart: restart}
	return &Supervisor{options: options, family: shared, failed: make(chan error, 1)}
}

func shell(name, script string, ready func(context.Context) error) Program {
	return Program{Name: name, Path: "/bin/sh", Args: []string{"-c", script}, Ready: ready, Limit: 10 * time.Second}
}

// written is ready once the file holds something.
func written(path string) func(context.Context) error {
	return func(context.Context) error {
		if data, err := os.ReadFile(path); err != nil || len(data) == 0 {
			return errors.New("nothing written yet")
		}
		return nil
	}
}

func TestAProgramStartsOnceTheOneBeforeIsReadyAndStopsInReverse(t *testing.T) {
	dir := t.TempDir()
	diary := filepath.Join(dir, "diary")
	script := func(name string) string {
		return "trap 'echo " + name + " ends >> " + diary + "; exit 0' TERM; echo " + name + " >> " + diary +
			"; echo > " + filepath.Join(dir, name) + "; while :; do sleep 0.05; done"
	}
	programs := []Program{
		shell("first", script("first"), written(filepath.Join(dir, "first"))),
		shell("second", script("second"), written(filepath.Join(dir, "second"))),
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := supervisor(t, false).Run(ctx, programs, cancel); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(diary)
	if want := "first\nsecond\nsecond ends\nfirst ends\n"; err != nil || string(text) != want {
		t.Fatalf("the diary says %q (%v), want %q", text, err, want)
	}
}

func TestAProgramThatEndsBeforeItIsReadyIsNotWaitedFor(t *testing.T) {
	never := func(context.Context) error { return errors.New("never") }
	s := supervisor(t, true)
	started := time.Now()
	err := s.Run(t.Context(), []Program{shell("refused", "exit 3", never)}, func() { t.Error("it is called ready") })
	for _, part := range []string{"refused ended", "exit code 3", s.logFile("refused")} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

// pidOf waits until the program has written a pid that is not the one given.
func pidOf(t *testing.T, path string, other int) int {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		data, _ := os.ReadFile(path)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && pid != other {
			return pid
		}
	}
	t.Fatal("no new pid was written")
	return 0
}

func TestAProgramThatDiesIsStartedAgainIfAskedTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	program := shell("mortal", "echo $$ > "+file+"; exec sleep 60", written(file))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done, ready := make(chan error), make(chan struct{})
	go func() { done <- supervisor(t, true).Run(ctx, []Program{program}, func() { close(ready) }) }()
	<-ready
	first := pidOf(t, file, 0)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := pidOf(t, file, first)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(second, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("pid %d outlives its supervisor: %v", second, err)
	}
}

func TestWithoutRestartTheFirstDeathEndsTheRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	program := shell("mortal", "echo $$ > "+file+"; exec sleep 60", written(file))
	err := supervisor(t, false).Run(t.Context(), []Program{program}, func() {
		_ = syscall.Kill(pidOf(t, file, 0), syscall.SIGKILL)
	})
	if err == nil || !strings.Contains(err.Error(), "mortal ended (killed by SIGKILL)") {
		t.Errorf("got %v", err)
	}
}

func TestAProgramThatIgnoresTheRequestToEndIsKilled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	program := shell("stubborn", "trap '' TERM; echo $$ > "+file+"; while :; do sleep 0.05; done", written(file))
	program.Grace = 200 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	if err := supervisor(t, false).Run(ctx, []Program{program}, cancel); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pidOf(t, file, 0), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("it still runs: %v", err)
	}
}

func TestTheLastRunsLogIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	for _, text := range []string{"one", "two", "three"} {
		log, err := openLog(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := log.WriteString(text); err != nil {
			t.Fatal(err)
		}
		log.Close()
	}
	now, _ := os.ReadFile(path)
	previous, _ := os.ReadFile(path + ".previous")
	if string(now) != "three" || string(previous) != "two" {
		t.Errorf("the logs hold %q and %q", now, previous)
	}
}
