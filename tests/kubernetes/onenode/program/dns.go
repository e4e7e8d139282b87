package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
)

const (
	clusterDomain = ".svc.cluster.local."
	timeToLive    = 2 // seconds; tests replace services quickly
)

// names answers for `<service>.<namespace>.svc.cluster.local`, and for the pods of a service
// without an address of its own by their host names. It knows nothing else: a cluster for tests
// has no way out.
type names struct {
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
}

func newNames(factory informers.SharedInformerFactory) *names {
	return &names{
		services: factory.Core().V1().Services().Lister(),
		slices:   factory.Discovery().V1().EndpointSlices().Lister(),
	}
}

func (n *names) serve(ctx context.Context, address string) error {
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	streams, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() {
		packets.Close()
		streams.Close()
	})
	go n.serveStreams(streams)
	buffer := make([]byte, 4096)
	for {
		size, from, err := packets.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			log.Printf("dns: %v", err)
			continue
		}
		if answer := n.answer(buffer[:size]); answer != nil {
			packets.WriteTo(answer, from)
		}
	}
}

func (n *names) serveStreams(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			for {
				connection.SetDeadline(time.Now().Add(10 * time.Second))
				var size uint16
				if binary.Read(connection, binary.BigEndian, &size) != nil {
					return
				}
				question := make([]byte, size)
				if _, err := io.ReadFull(connection, question); err != nil {
					return
				}
				answer := n.answer(question)
				if answer == nil {
					return
				}
				connection.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
			}
		}()
	}
}

func (n *names) answer(packet []byte) []byte {
	var query dnsmessage.Message
	if query.Unpack(packet) != nil || query.Response || len(query.Questions) != 1 {
		return nil
	}
	question := query.Questions[0]
	reply := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: query.ID, Response: true, Authoritative: true,
			RecursionDesired: query.RecursionDesired, RecursionAvailable: true,
		},
		Questions: query.Questions,
	}
	addresses, known := n.lookUp(strings.ToLower(question.Name.String()))
	if !known {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, address := range addresses {
		if question.Type != dnsmessage.TypeA && question.Type != dnsmessage.TypeALL {
			break
		}
		reply.Answers = append(reply.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: timeToLive},
			Body:   &dnsmessage.AResource{A: address.As4()},
		})
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// lookUp returns a name's addresses, and whether there is such a name at all.
func (n *names) lookUp(name string) ([]netip.Addr, bool) {
	short, found := strings.CutSuffix(name, clusterDomain)
	if !found {
		return nil, false
	}
	parts := strings.Split(short, ".")
	if len(parts) != 2 && len(parts) != 3 {
		return nil, false
	}
	namespace, serviceName := parts[len(parts)-1], parts[len(parts)-2]
	service, err := n.services.Services(namespace).Get(serviceName)
	if err != nil {
		return nil, false
	}
	host := ""
	if len(parts) == 3 {
		host = parts[0]
	}
	if service.Spec.ClusterIP != corev1.ClusterIPNone && host == "" {
		address, err := netip.ParseAddr(service.Spec.ClusterIP)
		return []netip.Addr{address}, err == nil && address.Is4()
	}
	addresses := n.endpoints(service, host)
	return addresses, host == "" || len(addresses) > 0
}

func (n *names) endpoints(service *corev1.Service, host string) []netip.Addr {
	selector := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: service.Name})
	slices, err := n.slices.EndpointSlices(service.Namespace).List(selector)
	if err != nil {
		return nil
	}
	var addresses []netip.Addr
	for _, slice := range slices {
		for _, endpoint := range slice.Endpoints {
			ready := endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready
			if !ready && !service.Spec.PublishNotReadyAddresses {
				continue
			}
			if host != "" && (endpoint.Hostname == nil || *endpoint.Hostname != host) {
				continue
			}
			for _, text := range endpoint.Addresses {
				if address, err := netip.ParseAddr(text); err == nil && address.Is4() {
					addresses = append(addresses, address)
				}
			}
		}
	}
	return addresses
}
