package doctor

import (
	"strings"
	"testing"
)

func TestMissingFilesAreNamedWithTheCommandThatBringsThem(t *testing.T) {
	err := missingPackages(func(path string) bool { return !strings.HasPrefix(path, "/usr/lib/cni/") && path != "/usr/sbin/runc" })
	if err == nil {
		t.Fatal("nothing is missed")
	}
	for _, part := range []string{"/usr/lib/cni/ptp", "/usr/sbin/runc", "apt-get install -y --no-install-recommends runc containernetworking-plugins"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), "iptables") {
		t.Errorf("%q names what is there", err)
	}
}

func TestACompleteMachineHasNoComplaint(t *testing.T) {
	if err := missingPackages(func(string) bool { return true }); err != nil {
		t.Error(err)
	}
}

func TestAStateFolderThatIsNotThereIsNamed(t *testing.T) {
	if err := CheckState("/nonexistent/state"); err == nil || !strings.Contains(err.Error(), "/nonexistent/state") {
		t.Errorf("got %v", err)
	}
}
