package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Store is the folder with a cluster's keys.
type Store struct{ Dir string }

// Certificate is the path of an identity's or authority's certificate (PEM).
func (s Store) Certificate(name string) string { return filepath.Join(s.Dir, name+".crt") }

// Key is the path of the private key (PEM, mode 0600).
func (s Store) Key(name string) string { return filepath.Join(s.Dir, name+".key") }

// PublicKey is the path of the service account key's public half (PEM).
func (s Store) PublicKey() string { return filepath.Join(s.Dir, ServiceAccount+".pub") }

// Ensure makes what is missing, damaged, different or about to expire; the rest stays. It returns the names of what
// it made. Identities of an authority that was made anew are made anew too.
func (s Store) Ensure(identities []Identity, now time.Time) ([]string, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of keys: %w", err)
	}
	made, err := s.ensureServiceAccount()
	if err != nil {
		return nil, err
	}
	authorities := map[string]pair{}
	for _, name := range []string{ClusterCA, FrontProxyCA} {
		serves := func(p pair) bool { return authorityServes(p, now) }
		create := func() (pair, error) { return newAuthority(name, now) }
		authority, fresh, err := s.ensure(name, serves, create)
		if err != nil {
			return nil, err
		}
		authorities[name] = authority
		made = append(made, fresh...)
	}
	for _, identity := range identities {
		authority := authorities[identity.authority()]
		serves := func(p pair) bool { return leafServes(p, identity, authority, now) }
		create := func() (pair, error) { return newLeaf(identity, authority, now) }
		_, fresh, err := s.ensure(identity.Name, serves, create)
		if err != nil {
			return nil, err
		}
		made = append(made, fresh...)
	}
	return made, nil
}

// ensure keeps the stored pair if it serves, else creates and stores one.
func (s Store) ensure(name string, serves func(pair) bool, create func() (pair, error)) (pair, []string, error) {
	if stored, err := s.load(name); err == nil && serves(stored) {
		return stored, nil, nil
	}
	created, err := create()
	if err != nil {
		return pair{}, nil, fmt.Errorf("certificate %s: %w", name, err)
	}
	if err := s.saveKey(name, created.key); err != nil {
		return pair{}, nil, err
	}
	return created, []string{name}, writePEM(s.Certificate(name), "CERTIFICATE", created.certificate.Raw, 0o644)
}

func (s Store) load(name string) (pair, error) {
	der, err := readPEM(s.Certificate(name))
	if err != nil {
		return pair{}, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, fmt.Errorf("read certificate %s: %w", name, err)
	}
	key, err := s.loadKey(name)
	return pair{certificate, key}, err
}

// ensureServiceAccount keeps the signing key as long as it can be read, so that tokens outlive a restart.
func (s Store) ensureServiceAccount() ([]string, error) {
	var made []string
	key, err := s.loadKey(ServiceAccount)
	if err != nil {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, fmt.Errorf("make the service account key: %w", err)
		}
		if err := s.saveKey(ServiceAccount, key); err != nil {
			return nil, err
		}
		made = []string{ServiceAccount}
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode the service account key: %w", err)
	}
	return made, writePEM(s.PublicKey(), "PUBLIC KEY", der, 0o644)
}

func (s Store) loadKey(name string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(s.Key(name))
	if err != nil {
		return nil, err
	}
	key, err := x509.ParseECPrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", name, err)
	}
	return key, nil
}

func (s Store) saveKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key %s: %w", name, err)
	}
	return writePEM(s.Key(name), "EC PRIVATE KEY", der, 0o600)
}

func readPEM(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New(path + " holds no PEM block")
	}
	return block.Bytes, nil
}

// writePEM replaces the file whole: a crash leaves the old one or the new one.
func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	fresh := path + ".new"
	if err := os.WriteFile(fresh, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
