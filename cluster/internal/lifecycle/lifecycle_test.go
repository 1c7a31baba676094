package lifecycle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fanfold.dev/cluster/internal/plan"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 500e6, time.UTC)

func ready(status corev1.ConditionStatus, heartbeat time.Time) []corev1.NodeCondition {
	return []corev1.NodeCondition{
		{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse},
		{Type: corev1.NodeReady, Status: status, LastHeartbeatTime: metav1.NewTime(heartbeat.Truncate(time.Second))},
	}
}

func TestANodeIsReadyOnlyByItsOwnReportSinceItsStart(t *testing.T) {
	if err := readyIn(ready(corev1.ConditionTrue, noon), noon); err != nil {
		t.Errorf("reported in the second of its start: %v", err)
	}
	for what, conditions := range map[string][]corev1.NodeCondition{
		"not reported yet":    nil,
		"not reported since":  ready(corev1.ConditionTrue, noon.Add(-time.Minute)),
		"not ready: no space": withMessage(ready(corev1.ConditionFalse, noon), "no space"),
	} {
		if err := readyIn(conditions, noon); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got %v, want a word about %q", err, what)
		}
	}
}

func withMessage(conditions []corev1.NodeCondition, message string) []corev1.NodeCondition {
	for i := range conditions {
		conditions[i].Message = message
	}
	return conditions
}

func TestAClusterRemembersItsAddressesAndSize(t *testing.T) {
	state := t.TempDir()
	if err := os.WriteFile(recordFile(state), []byte(`{"slot": 9, "nodes": 3}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cluster, known, err := find(Options{Name: "remembered", State: state})
	if err != nil || !known || cluster.Slot != 9 || cluster.Nodes != 3 {
		t.Errorf("got %+v, %t, %v", cluster, known, err)
	}
}

func TestANodeIsFoundByItsNameAndOthersAreRefusedWithTheChoice(t *testing.T) {
	cluster := plan.Cluster{Name: "two", Nodes: 2}
	if n, err := nodeNamed(cluster, "two-2"); err != nil || n.Number != 2 {
		t.Errorf("got %+v, %v", n, err)
	}
	for _, wrong := range []string{"", "two-3", "other-1"} {
		if _, err := nodeNamed(cluster, wrong); err == nil || !strings.Contains(err.Error(), "two-1, two-2") {
			t.Errorf("%q: got %v", wrong, err)
		}
	}
}

func TestADamagedRecordIsNamed(t *testing.T) {
	state := t.TempDir()
	for _, damaged := range []string{"torn", `{"slot": 99, "nodes": 1}`} {
		if err := os.WriteFile(recordFile(state), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := find(Options{Name: "damaged", State: state}); err == nil {
			t.Errorf("%q is accepted", damaged)
		}
	}
}

func TestASecondCommandOnTheSameClusterIsRefused(t *testing.T) {
	cluster := plan.Cluster{Name: "lock-test"}
	held, err := lock(cluster)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(cluster); err == nil {
		t.Error("it is let in")
	}
	held.Close()
	again, err := lock(cluster)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	again.Close()
}

func TestAnErrorOfAnEndedComponentIsItsLastWord(t *testing.T) {
	log := filepath.Join(t.TempDir(), "supervisor.log")
	if err := os.WriteFile(log, []byte("noise\nfanfold-cluster: etcd ended: read etcd.log\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastWords("supervisor", log).Error(); got != "etcd ended: read etcd.log" {
		t.Errorf("got %q", got)
	}
	for _, silent := range []string{log + ".missing", os.DevNull} {
		if got := lastWords("supervisor", silent).Error(); got != "supervisor has ended: read "+silent {
			t.Errorf("got %q", got)
		}
	}
}
