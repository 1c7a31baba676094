package controlplane

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ReservePorts finds free TCP ports on a loopback address and keeps them from anybody else until release is called:
// a bound socket that never listens. Servers that set SO_REUSEPORT (--permit-port-sharing) can use them meanwhile.
func ReservePorts(address netip.Addr) (ports Ports, release func(), err error) {
	var sockets []int
	release = func() {
		for _, socket := range sockets {
			unix.Close(socket)
		}
	}
	for _, port := range []*int{&ports.API, &ports.Controllers} {
		socket, number, err := reservePort(address)
		if err != nil {
			release()
			return Ports{}, nil, err
		}
		sockets = append(sockets, socket)
		*port = number
	}
	return ports, release, nil
}

func reservePort(address netip.Addr) (socket, port int, err error) {
	socket, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("reserve a port: %w", err)
	}
	err = unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil {
		err = unix.Bind(socket, &unix.SockaddrInet4{Addr: address.As4()})
	}
	var bound unix.Sockaddr
	if err == nil {
		bound, err = unix.Getsockname(socket)
	}
	if err != nil {
		unix.Close(socket)
		return 0, 0, fmt.Errorf("reserve a port on %s: %w", address, err)
	}
	return socket, bound.(*unix.SockaddrInet4).Port, nil
}
