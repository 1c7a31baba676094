package node

import (
	"slices"
	"testing"
)

const (
	version1 = `30 24 0:26 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 24 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
33 24 0:29 / /sys/fs/bpf rw,relatime - bpf none rw
`
	version2 = "34 24 0:30 / /sys/fs/cgroup rw,nosuid shared:4 master:2 - cgroup2 cgroup2 rw,nsdelegate\n"
)

func TestEveryCgroupMountIsFound(t *testing.T) {
	found := parseHierarchies(version1)
	var paths []string
	for _, h := range found {
		paths = append(paths, h.path)
	}
	if want := []string{"/sys/fs/cgroup/cpuset", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/unified"}; !slices.Equal(paths, want) {
		t.Fatalf("found %v, want %v", paths, want)
	}
	if !slices.Contains(found[0].controllers, "cpuset") || slices.Contains(found[1].controllers, "cpuset") {
		t.Errorf("controllers are %v and %v", found[0].controllers, found[1].controllers)
	}
	if found[0].unified || !found[2].unified {
		t.Error("the versions are mistaken")
	}
}

func TestTheSingleTreeOfVersion2IsFound(t *testing.T) {
	found := parseHierarchies(version2)
	if len(found) != 1 || found[0].path != "/sys/fs/cgroup" || !found[0].unified {
		t.Fatalf("found %+v", found)
	}
}

func TestLinesOfOtherShapesAreSkipped(t *testing.T) {
	if found := parseHierarchies("nonsense\n\n1 2 3 - cgroup\n"); found != nil {
		t.Fatalf("found %+v", found)
	}
}
