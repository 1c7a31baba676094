// Package pki makes the keys and certificates of a cluster and keeps them while they serve.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// ClusterCA signs every identity but the one below.
	ClusterCA = "ca"
	// FrontProxyCA signs only the API server's identity towards extension API servers: whoever holds one of its
	// certificates may speak in anybody's name there, so it must not be the CA that signs users.
	FrontProxyCA = "front-proxy-ca"
	// ServiceAccount is the key pair that signs service account tokens.
	ServiceAccount = "sa"

	caValidity   = 5 * 365 * 24 * time.Hour
	leafValidity = 365 * 24 * time.Hour
	// renewBefore leaves a cluster that runs for weeks with certificates that outlive it.
	renewBefore = 60 * 24 * time.Hour
	// clockSkew lets a certificate be used at once by a clock that is a little behind.
	clockSkew = 5 * time.Minute
)

// Identity is a certificate to have: for a server its addresses, for a client its user and groups.
type Identity struct {
	Name   string // of its files
	CA     string // ClusterCA when empty
	User   string
	Groups []string
	Hosts  []string     // DNS names it serves
	IPs    []netip.Addr // addresses it serves
	Server bool
	Client bool
}

func (i Identity) authority() string {
	if i.CA == "" {
		return ClusterCA
	}
	return i.CA
}

func (i Identity) usages() []x509.ExtKeyUsage {
	var usages []x509.ExtKeyUsage
	if i.Server {
		usages = append(usages, x509.ExtKeyUsageServerAuth)
	}
	if i.Client {
		usages = append(usages, x509.ExtKeyUsageClientAuth)
	}
	return usages
}

// pair is a certificate with its key.
type pair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(name string, now time.Time) (pair, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "fanfold-cluster " + name},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(caValidity),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	return issue(template, nil)
}

func newLeaf(identity Identity, authority pair, now time.Time) (pair, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: identity.User, Organization: identity.Groups},
		NotBefore:   now.Add(-clockSkew),
		NotAfter:    now.Add(leafValidity),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: identity.usages(),
		DNSNames:    identity.Hosts,
		IPAddresses: netIPs(identity.IPs),
	}
	return issue(template, &authority)
}

// issue signs a new key's certificate; without an authority the key signs itself.
func issue(template *x509.Certificate, authority *pair) (pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return pair{}, fmt.Errorf("make a serial number: %w", err)
	}
	template.SerialNumber = serial
	signer := pair{template, key}
	if authority != nil {
		signer = *authority
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.certificate, key.Public(), signer.key)
	if err != nil {
		return pair{}, fmt.Errorf("sign a certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, fmt.Errorf("read back a certificate: %w", err)
	}
	return pair{certificate, key}, nil
}

// authorityServes tells whether a certificate authority can still sign for a full leaf's life.
func authorityServes(p pair, now time.Time) bool {
	return p.certificate.IsCA && matches(p) && now.Add(leafValidity).Before(p.certificate.NotAfter)
}

// leafServes tells whether a certificate is this identity's, by this authority, and not about to expire.
func leafServes(p pair, identity Identity, authority pair, now time.Time) bool {
	c := p.certificate
	return matches(p) &&
		c.CheckSignatureFrom(authority.certificate) == nil &&
		!now.Before(c.NotBefore) && now.Add(renewBefore).Before(c.NotAfter) &&
		c.Subject.CommonName == identity.User &&
		slices.Equal(c.Subject.Organization, identity.Groups) &&
		slices.Equal(c.DNSNames, identity.Hosts) &&
		slices.EqualFunc(c.IPAddresses, netIPs(identity.IPs), net.IP.Equal) &&
		slices.Equal(c.ExtKeyUsage, identity.usages())
}

func matches(p pair) bool {
	public, ok := p.key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(p.certificate.PublicKey)
}

func netIPs(addresses []netip.Addr) []net.IP {
	var ips []net.IP
	for _, address := range addresses {
		ips = append(ips, net.IP(address.AsSlice()))
	}
	return ips
}
