package controlplane

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func TestAReservedPortIsNobodyElsesUntilReleased(t *testing.T) {
	ports, release, err := ReservePorts(loopback)
	if err != nil {
		t.Fatal(err)
	}
	if ports.API == 0 || ports.Controllers == 0 || ports.API == ports.Controllers {
		t.Fatalf("reserved %+v", ports)
	}
	address := net.JoinHostPort(loopback.String(), strconv.Itoa(ports.API))
	if taken, err := net.Listen("tcp", address); err == nil {
		taken.Close()
		t.Error("another process can take it")
	}
	release()
	free, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatalf("it is still taken after its release: %v", err)
	}
	free.Close()
}

func config(bare, noController bool) Config {
	return Config{
		Name: "test", Dir: "/dir", Address: loopback, Services: netip.MustParsePrefix("10.96.0.0/16"),
		Ports: Ports{API: 6443, Controllers: 10257, Scheduler: 10259}, Bare: bare, NoController: noController,
	}
}

func names(c Config) string {
	var all []string
	for _, program := range c.Programs() {
		all = append(all, program.Name)
	}
	return strings.Join(all, " ")
}

func TestABareControlPlaneRunsNoMoreThanItIsAskedFor(t *testing.T) {
	for want, c := range map[string]Config{
		"etcd kube-apiserver":                                        config(true, true),
		"etcd kube-apiserver kube-controller-manager":                config(true, false),
		"etcd kube-apiserver kube-controller-manager kube-scheduler": config(false, false),
	} {
		if got := names(c); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestOnlyABareControlPlanesDataMayBeLostWithTheMachine(t *testing.T) {
	for _, bare := range []bool{true, false} {
		flags := strings.Join(config(bare, false).etcdFlags(), " ")
		if strings.Contains(flags, "--unsafe-no-fsync") != bare {
			t.Errorf("bare %t: %s", bare, flags)
		}
	}
}

func TestControllersThatHaveLostTouchWithTheAPIServerEnd(t *testing.T) {
	for _, bare := range []bool{true, false} {
		flags := strings.Join(config(bare, false).controllerFlags(), " ")
		if strings.Contains(flags, "--leader-elect=true") == bare {
			t.Errorf("bare %t: %s", bare, flags)
		}
	}
}

func TestEtcdIsNotOnTheNetwork(t *testing.T) {
	for _, flag := range config(false, false).etcdFlags() {
		if strings.Contains(flag, "http://") || strings.Contains(flag, "https://") {
			t.Errorf("%s", flag)
		}
	}
}

func TestPodsMayTrustTheAPIServerAtItsServiceAddress(t *testing.T) {
	for _, identity := range config(false, false).identities() {
		if identity.Name != apiserverIdentity {
			continue
		}
		for _, address := range identity.IPs {
			if address == netip.MustParseAddr("10.96.0.1") {
				return
			}
		}
	}
	t.Error("10.96.0.1 is not in its certificate")
}
