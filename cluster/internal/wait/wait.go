// Package wait polls for a condition, never without a limit.
package wait

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Goal says what is waited for, for how long, and where to look when it does not come.
type Goal struct {
	What  string        // completes the sentence "waiting for …"
	Log   string        // the file that tells why; may be empty
	Limit time.Duration // of the whole wait
}

// interval between two checks: short, since starting again is measured in seconds and a check costs a local call.
const interval = 100 * time.Millisecond

// fatalError marks a failure that no further waiting can mend.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

// Fatal makes Until give up at once and return this very error: it should say all there is to say.
func Fatal(err error) error { return fatalError{err} }

// Until calls check until it returns nil. It fails when check says that waiting is pointless (Fatal), when the limit has
// passed, or when ctx ends; the error carries the last failure and names the log.
func Until(ctx context.Context, goal Goal, check func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, goal.Limit)
	defer cancel()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		err := check(limited)
		if err == nil {
			return nil
		}
		var fatal fatalError
		if errors.As(err, &fatal) {
			return fatal.error
		}
		select {
		case <-limited.Done():
			// The end of ctx ends limited too: which of the two it was must not depend on the order of a select.
			if ctx.Err() != nil {
				return goal.failure("interrupted", err)
			}
			return goal.failure(fmt.Sprintf("not there after %s", goal.Limit), err)
		case <-ticker.C:
		}
	}
}

func (g Goal) failure(how string, last error) error {
	if g.Log == "" {
		return fmt.Errorf("waiting for %s: %s: %w", g.What, how, last)
	}
	return fmt.Errorf("waiting for %s: %s: %w (read %s)", g.What, how, last, g.Log)
}
