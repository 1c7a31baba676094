package pki

import (
	"crypto/x509"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
)

var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func server() Identity {
	return Identity{
		Name: "apiserver", User: "kube-apiserver", Server: true,
		Hosts: []string{"localhost"}, IPs: []netip.Addr{netip.MustParseAddr("10.99.0.1")},
	}
}

func admin() Identity {
	return Identity{Name: "admin", User: "admin", Groups: []string{"system:masters"}, Client: true}
}

func ensure(t *testing.T, store Store, now time.Time, identities ...Identity) []string {
	t.Helper()
	made, err := store.Ensure(identities, now)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestCertificatesAreMadeOnceAndKept(t *testing.T) {
	store := Store{t.TempDir()}
	made := ensure(t, store, start, server(), admin())
	if want := []string{"sa", "ca", "front-proxy-ca", "apiserver", "admin"}; !slices.Equal(made, want) {
		t.Fatalf("made %v, want %v", made, want)
	}
	if again := ensure(t, store, start.Add(time.Hour), server(), admin()); again != nil {
		t.Fatalf("made %v again", again)
	}
}

func TestACertificateIsRenewedBeforeItExpires(t *testing.T) {
	store := Store{t.TempDir()}
	ensure(t, store, start, admin())
	soon := start.Add(leafValidity - renewBefore + time.Hour)
	if made := ensure(t, store, soon, admin()); !slices.Equal(made, []string{"admin"}) {
		t.Fatalf("made %v", made)
	}
}

func TestANewAddressMeansANewCertificate(t *testing.T) {
	store := Store{t.TempDir()}
	ensure(t, store, start, server(), admin())
	moved := server()
	moved.IPs = append(moved.IPs, netip.MustParseAddr("10.99.1.1"))
	if made := ensure(t, store, start, moved, admin()); !slices.Equal(made, []string{"apiserver"}) {
		t.Fatalf("made %v", made)
	}
}

func TestADamagedAuthorityIsReplacedWithAllItSigned(t *testing.T) {
	store := Store{t.TempDir()}
	ensure(t, store, start, server(), admin())
	if err := os.WriteFile(store.Certificate(ClusterCA), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	made := ensure(t, store, start, server(), admin())
	if want := []string{"ca", "apiserver", "admin"}; !slices.Equal(made, want) {
		t.Fatalf("made %v, want %v", made, want)
	}
}

func TestAKeyOfAnotherCertificateIsNoticed(t *testing.T) {
	store := Store{t.TempDir()}
	ensure(t, store, start, server(), admin())
	if err := os.Rename(store.Key("apiserver"), store.Key("admin")); err != nil {
		t.Fatal(err)
	}
	made := ensure(t, store, start, server(), admin())
	if want := []string{"apiserver", "admin"}; !slices.Equal(made, want) {
		t.Fatalf("made %v, want %v", made, want)
	}
}

func TestFrontProxyIdentitiesAreNoUsersOfTheCluster(t *testing.T) {
	store := Store{t.TempDir()}
	ensure(t, store, start, Identity{Name: "proxy", CA: FrontProxyCA, User: "front-proxy-client", Client: true})
	proxy, err := store.load("proxy")
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := store.load(ClusterCA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cluster.certificate)
	options := x509.VerifyOptions{Roots: pool, CurrentTime: start, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	if _, err := proxy.certificate.Verify(options); err == nil {
		t.Fatal("the cluster's CA vouches for a front proxy certificate")
	}
}

func TestPrivateKeysAreReadableByTheirOwnerOnly(t *testing.T) {
	store := Store{t.TempDir()}
	ensure(t, store, start, admin())
	for _, name := range []string{ClusterCA, FrontProxyCA, ServiceAccount, "admin"} {
		info, err := os.Stat(store.Key(name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %s", store.Key(name), info.Mode())
		}
	}
}
