package main

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"log"
	"net/netip"
	"os/exec"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
)

// The chains that policies are written to; everything else belongs to kube-proxy and the
// network plugin.
const (
	policyChain    = "TEST-POLICIES"
	fromPodsToNode = "TEST-POLICIES-NODE"
)

// policies enforces NetworkPolicy objects with the node's packet filter. Every pod has a link of
// its own, so all that pods say to each other passes the FORWARD chain, and what they say to the
// node itself passes INPUT. Refused packets are answered at once: a test need not wait for a
// timeout. The node may reach its pods always, as the kubelet's probes must.
type policies struct {
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	policies   networkinglisters.NetworkPolicyLister
	nodeIP     string
	changed    chan struct{}
}

// endpoint is a pod as policies see it: labels, an address, and named ports.
type endpoint struct {
	namespace string
	labels    labels.Set
	ip        string
	ports     map[string]int32
}

func newPolicies(factory informers.SharedInformerFactory, nodeIP string) *policies {
	p := &policies{
		pods:       factory.Core().V1().Pods().Lister(),
		namespaces: factory.Core().V1().Namespaces().Lister(),
		policies:   factory.Networking().V1().NetworkPolicies().Lister(),
		nodeIP:     nodeIP,
		changed:    make(chan struct{}, 1),
	}
	notify := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { p.notify() },
		UpdateFunc: func(any, any) { p.notify() },
		DeleteFunc: func(any) { p.notify() },
	}
	factory.Core().V1().Pods().Informer().AddEventHandler(notify)
	factory.Core().V1().Namespaces().Informer().AddEventHandler(notify)
	factory.Networking().V1().NetworkPolicies().Informer().AddEventHandler(notify)
	return p
}

func (p *policies) notify() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// run keeps the rules as the objects say; what did not work is tried again.
func (p *policies) run(ctx context.Context) {
	for _, hook := range [][2]string{{"FORWARD", policyChain}, {"INPUT", fromPodsToNode}} {
		iptables("-N", hook[1])
		if err := iptables("-I", hook[0], "1", "-j", hook[1]); err != nil {
			log.Printf("policies: %v", err)
		}
	}
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
		}
		rules, err := p.rules()
		if err == nil && rules != last {
			if err = restore(rules); err == nil {
				last = rules
			}
		}
		if err != nil {
			log.Printf("policies: %v", err)
			time.AfterFunc(time.Second, p.notify)
		}
	}
}

func (p *policies) rules() (string, error) {
	everyone, err := p.endpoints()
	if err != nil {
		return "", err
	}
	objects, err := p.policies.List(labels.Everything())
	if err != nil {
		return "", err
	}
	sort.Slice(objects, func(i, j int) bool { return objects[i].UID < objects[j].UID })
	var chains, outgoing, incoming, toNode, accepts bytes.Buffer
	for _, pod := range everyone {
		egress, ingress := isolating(objects, pod)
		if egress != nil {
			name := chainName("E", pod.ip)
			fmt.Fprintf(&chains, ":%s - [0:0]\n", name)
			fmt.Fprintf(&outgoing, "-A %s -s %s -j %s\n", policyChain, pod.ip, name)
			fmt.Fprintf(&toNode, "-A %s -s %s -j %s\n", fromPodsToNode, pod.ip, name)
			for _, policy := range egress {
				for _, rule := range policy.Spec.Egress {
					p.accept(&accepts, name, "-d", policy.Namespace, rule.To, rule.Ports, everyone, nil)
				}
			}
			fmt.Fprintf(&accepts, "-A %s -j REJECT\n", name)
		}
		if ingress != nil {
			name := chainName("I", pod.ip)
			fmt.Fprintf(&chains, ":%s - [0:0]\n", name)
			fmt.Fprintf(&incoming, "-A %s -d %s -j %s\n", policyChain, pod.ip, name)
			for _, policy := range ingress {
				for _, rule := range policy.Spec.Ingress {
					p.accept(&accepts, name, "-s", policy.Namespace, rule.From, rule.Ports, everyone, &pod)
				}
			}
			fmt.Fprintf(&accepts, "-A %s -j REJECT\n", name)
		}
	}
	known := "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"
	return fmt.Sprintf("*filter\n:%s - [0:0]\n:%s - [0:0]\n%s-A %s %s\n-A %s %s\n%s%s%s%sCOMMIT\n",
		policyChain, fromPodsToNode, chains.String(), policyChain, known, fromPodsToNode, known,
		outgoing.String(), incoming.String(), toNode.String(), accepts.String()), nil
}

// isolating returns the policies that apply to what a pod sends and to what it is sent; nil where
// none does and everything is allowed.
func isolating(objects []*networkingv1.NetworkPolicy, pod endpoint) (egress, ingress []*networkingv1.NetworkPolicy) {
	for _, policy := range objects {
		if policy.Namespace != pod.namespace || !matches(&policy.Spec.PodSelector, pod.labels) {
			continue
		}
		for _, kind := range policy.Spec.PolicyTypes {
			switch kind {
			case networkingv1.PolicyTypeEgress:
				egress = append(egress, policy)
			case networkingv1.PolicyTypeIngress:
				ingress = append(ingress, policy)
			}
		}
	}
	return egress, ingress
}

// accept writes one rule: any of its peers, at any of its ports. `target` is the pod whose ports
// have names, where the rule is about what it is sent; else the peers' own ports have them.
func (p *policies) accept(
	out *bytes.Buffer, chain, direction, namespace string,
	peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort,
	everyone []endpoint, target *endpoint,
) {
	write := func(match string, owner *endpoint) {
		if target != nil {
			owner = target
		}
		for _, port := range portMatches(ports, owner) {
			line := strings.Join(strings.Fields(match+" "+port), " ")
			fmt.Fprintf(out, "-A %s %s -j RETURN\n", chain, line)
		}
	}
	if len(peers) == 0 {
		write("", nil)
	}
	for _, peer := range peers {
		if peer.IPBlock != nil {
			for _, block := range left(peer.IPBlock) {
				write(direction+" "+block.String(), nil)
			}
			continue
		}
		for _, other := range everyone {
			if p.selects(peer, namespace, other) {
				write(direction+" "+other.ip, &other)
			}
		}
	}
}

// without returns what is left of a block of addresses when others are taken out.
func without(block netip.Prefix, excepted []netip.Prefix) []netip.Prefix {
	overlaps := false
	for _, except := range excepted {
		if except.Bits() <= block.Bits() && except.Contains(block.Addr()) {
			return nil
		}
		overlaps = overlaps || except.Overlaps(block)
	}
	if !overlaps {
		return []netip.Prefix{block}
	}
	half := block.Bits() + 1
	upper := block.Addr().As4()
	upper[(half-1)/8] |= 1 << (7 - (half-1)%8)
	return append(
		without(netip.PrefixFrom(block.Addr(), half), excepted),
		without(netip.PrefixFrom(netip.AddrFrom4(upper), half), excepted)...,
	)
}

func left(block *networkingv1.IPBlock) []netip.Prefix {
	whole, err := netip.ParsePrefix(block.CIDR)
	if err != nil || !whole.Addr().Is4() {
		return nil
	}
	var excepted []netip.Prefix
	for _, text := range block.Except {
		if except, err := netip.ParsePrefix(text); err == nil {
			excepted = append(excepted, except.Masked())
		}
	}
	return without(whole.Masked(), excepted)
}

func (p *policies) selects(peer networkingv1.NetworkPolicyPeer, namespace string, other endpoint) bool {
	if peer.NamespaceSelector == nil {
		if other.namespace != namespace {
			return false
		}
	} else {
		found, err := p.namespaces.Get(other.namespace)
		if err != nil || !matches(peer.NamespaceSelector, found.Labels) {
			return false
		}
	}
	return peer.PodSelector == nil || matches(peer.PodSelector, other.labels)
}

// portMatches returns what iptables is to match for each of a rule's ports.
func portMatches(ports []networkingv1.NetworkPolicyPort, owner *endpoint) []string {
	if len(ports) == 0 {
		return []string{""}
	}
	var found []string
	for _, port := range ports {
		protocol := "tcp"
		if port.Protocol != nil {
			protocol = strings.ToLower(string(*port.Protocol))
		}
		match := "-p " + protocol
		switch {
		case port.Port == nil:
		case port.Port.Type == intstr.String:
			if owner == nil || owner.ports[port.Port.StrVal] == 0 {
				continue
			}
			match += fmt.Sprintf(" --dport %d", owner.ports[port.Port.StrVal])
		case port.EndPort != nil:
			match += fmt.Sprintf(" --dport %d:%d", port.Port.IntVal, *port.EndPort)
		default:
			match += fmt.Sprintf(" --dport %d", port.Port.IntVal)
		}
		found = append(found, match)
	}
	return found
}

func (p *policies) endpoints() ([]endpoint, error) {
	pods, err := p.pods.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	// Names are answered by the node; policies know that service by these labels.
	found := []endpoint{{
		namespace: metav1.NamespaceSystem, labels: labels.Set{"k8s-app": "kube-dns"}, ip: p.nodeIP,
		ports: map[string]int32{"dns": 53, "dns-tcp": 53},
	}}
	for _, pod := range pods {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if pod.Status.PodIP == "" || pod.Spec.HostNetwork || ended {
			continue
		}
		ports := map[string]int32{}
		for _, container := range pod.Spec.Containers {
			for _, port := range container.Ports {
				ports[port.Name] = port.ContainerPort
			}
		}
		found = append(found, endpoint{pod.Namespace, pod.Labels, pod.Status.PodIP, ports})
	}
	sort.Slice(found, func(i, j int) bool { return found[i].ip < found[j].ip })
	return found, nil
}

func matches(selector *metav1.LabelSelector, set labels.Set) bool {
	found, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && found.Matches(set)
}

func chainName(kind, ip string) string {
	hash := fnv.New64a()
	hash.Write([]byte(ip))
	return fmt.Sprintf("TEST-%s-%016x", kind, hash.Sum64())
}

func iptables(arguments ...string) error {
	return run(exec.Command("iptables", append([]string{"-w"}, arguments...)...))
}

// restore replaces the chains that are named in the rules; chains of pods that are gone stay
// empty-handed, for nothing leads to them.
func restore(rules string) error {
	command := exec.Command("iptables-restore", "-w", "--noflush")
	command.Stdin = strings.NewReader(rules)
	return run(command)
}

func run(command *exec.Cmd) error {
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command.Path, err, bytes.TrimSpace(said))
	}
	return nil
}
