package wait

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestUntilReturnsAsSoonAsTheCheckPasses(t *testing.T) {
	calls := 0
	err := Until(t.Context(), Goal{What: "a third call", Limit: 5 * time.Second}, func(context.Context) error {
		calls++
		if calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || calls != 3 {
		t.Fatalf("got %v after %d calls", err, calls)
	}
}

func TestUntilNamesTheGoalTheLastFailureAndTheLog(t *testing.T) {
	goal := Goal{What: "the moon", Log: "/logs/moon.log", Limit: 10 * time.Millisecond}
	err := Until(t.Context(), goal, func(context.Context) error { return errors.New("too far") })
	for _, part := range []string{"the moon", "too far", "/logs/moon.log", "10ms"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not name %q", err, part)
		}
	}
}

func TestUntilGivesUpAtOnceWhenWaitingIsPointless(t *testing.T) {
	started := time.Now()
	cause := errors.New("refused its flags")
	err := Until(t.Context(), Goal{What: "a server", Limit: time.Minute}, func(context.Context) error { return Fatal(cause) })
	if !errors.Is(err, cause) || time.Since(started) > 5*time.Second {
		t.Fatalf("got %v after %s", err, time.Since(started))
	}
}

func TestUntilStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Until(ctx, Goal{What: "ever", Limit: time.Minute}, func(context.Context) error { return errors.New("no") })
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Fatalf("got %v", err)
	}
}
