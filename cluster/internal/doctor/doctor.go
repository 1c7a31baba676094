// Package doctor finds out what this machine lacks before anything is started.
package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// requirement is a file that a Debian package brings.
type requirement struct{ path, apt string }

var requirements = []requirement{
	{"/usr/bin/containerd", "containerd"},
	{"/usr/bin/ctr", "containerd"},
	{"/usr/bin/containerd-shim-runc-v2", "containerd"},
	{"/usr/sbin/runc", "runc"},
	{"/usr/sbin/iptables", "iptables"},
	{"/usr/sbin/iptables-restore", "iptables"},
	{"/usr/lib/cni/ptp", "containernetworking-plugins"},
	{"/usr/lib/cni/host-local", "containernetworking-plugins"},
	{"/usr/lib/cni/portmap", "containernetworking-plugins"},
	{"/usr/bin/mount", "mount"},
}

// Pause is the path of the program of the pods' sandboxes: beside this binary.
func Pause() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return filepath.Join(filepath.Dir(self), "fanfold-pause"), nil
}

// Check returns an error that names everything that is missing, and how to get it.
func Check() error {
	var problems []error
	if os.Geteuid() != 0 {
		problems = append(problems, errors.New("a cluster needs root (namespaces, mounts, cgroups): run this with sudo"))
	}
	if path, err := Pause(); err != nil {
		problems = append(problems, err)
	} else if !exists(path) {
		problems = append(problems, fmt.Errorf("%s is missing: run cluster/build.sh", path))
	}
	problems = append(problems, missingPackages(exists))
	return errors.Join(problems...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func missingPackages(exists func(string) bool) error {
	var files, packages []string
	for _, r := range requirements {
		if exists(r.path) {
			continue
		}
		files = append(files, r.path)
		if !slices.Contains(packages, r.apt) {
			packages = append(packages, r.apt)
		}
	}
	if files == nil {
		return nil
	}
	return fmt.Errorf("missing: %s. Install them with: apt-get install -y --no-install-recommends %s",
		strings.Join(files, ", "), strings.Join(packages, " "))
}

// CheckState refuses a state folder in which containers could not unpack their images.
func CheckState(dir string) error {
	var status unix.Statfs_t
	if err := unix.Statfs(dir, &status); err != nil {
		return fmt.Errorf("look at the state folder %s: %w", dir, err)
	}
	if status.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("the state folder %s is on an overlay file system, on which no other can be laid: choose another with --state", dir)
	}
	return nil
}
