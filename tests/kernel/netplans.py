"""netplan files in spellings that people use, and what becomes of each: applied or refused."""

from __future__ import annotations

#: Applied whole, or with keys left to the host's manager.
APPLIED = {
    "addresses-as-mappings": """
        network:
          version: 2
          ethernets:
            enp5s0:
              addresses:
                - "192.0.2.5/24":
                    label: "enp5s0:web"
                    lifetime: 0
                - 2001:db8:5::5/64
                - 192.0.2.6/24: {}
        """,
    "on-link-gateway": """
        network:
          version: 2
          renderer: networkd
          ethernets:
            ens3:
              addresses: [203.0.113.7/32]
              routes:
                - {to: 0.0.0.0/0, via: 203.0.112.1, on-link: true}
                - {to: "::/0", via: "fe80::1", on-link: yes}
        """,
    "metrics-and-tables": """
        network:
          version: 2
          ethernets:
            eno1:
              addresses: ["192.0.2.9/24", "2001:db8:9::9/64"]
              routes:
                - {to: default, via: 192.0.2.1, metric: 100}
                - {to: default, via: 192.0.2.2, metric: 200}
                - {to: 198.51.100.0/24, via: 192.0.2.3, table: 42, mtu: 1400}
                - {to: 198.51.100.64/26, scope: link}
                - {to: 203.0.113.0/24, type: blackhole}
                - {to: 2001:db8:99::/48, via: "2001:db8:9::1", metric: 512}
        """,
    "found-by-mac-and-renamed": """
        network:
          version: 2
          ethernets:
            uplink:
              match: {macaddress: "02:00:5E:10:00:01"}
              set-name: up0
              mtu: 1400
              wakeonlan: true
              addresses: [192.0.2.17/28]
        """,
    "found-by-a-pattern": """
        network:
          version: 2
          ethernets:
            all-of-them:
              match:
                name: enp7*
              addresses:
              - 192.0.2.33/28
              optional: true
        """,
    "bridge-with-every-parameter": """
        network:
          version: 2
          ethernets:
            eth0: {dhcp4: off, dhcp6: "no"}
            eth1: {}
          bridges:
            br0:
              interfaces: [eth0, eth1]
              macaddress: 02:00:5e:20:00:01
              mtu: 1450
              addresses: [192.0.2.65/26]
              parameters:
                ageing-time: 60
                priority: 8192
                port-priority: {eth0: 5, eth1: 6}
                forward-delay: 4
                hello-time: 1
                max-age: 12
                path-cost:
                  eth0: 50
                  eth1: 60
                stp: true
        """,
    "aging-time-and-no-stp": """
        network:
          version: 2
          ethernets: {eth0: {}}
          bridges:
            br0:
              interfaces: [eth0]
              parameters: {aging-time: 30, stp: off, forward-delay: 0}
        """,
    "dhcp-with-overrides": """
        network:
          version: 2
          renderer: networkd
          ethernets:
            eth0:
              dhcp4: true
              dhcp4-overrides: {use-dns: false, route-metric: 300, hostname: h1}
              dhcp6: false
              dhcp-identifier: mac
              accept-ra: false
              mtu: 1400
        """,
    "nameservers": """
        network:
          version: 2
          ethernets:
            eth0:
              addresses: [192.0.2.81/28]
              link-local: [ipv6]
              nameservers:
                search: [example.net]
                addresses: [192.0.2.82, "2001:db8::53"]
              routes:
              - to: default
                via: 192.0.2.94
        """,
    "virtual-ethernets": """
        network:
          version: 2
          virtual-ethernets:
            veth0-peer1: {peer: veth0-peer2, addresses: [192.0.2.97/30]}
            veth0-peer2:
              peer: veth0-peer1
              mtu: 1400
          bridges:
            br9: {interfaces: [veth0-peer2]}
        """,
    "policy-routing": """
        network:
          version: 2
          ethernets:
            eth0:
              addresses: [192.0.2.129/27, "2001:db8:b::1/64"]
              routing-policy:
                - {from: 192.0.2.128/27, table: 101, priority: 32000}
                - {to: 198.51.100.0/24, table: 101, type-of-service: 8, priority: 31000}
                - {from: "2001:db8:b::/64", table: 102, mark: 255, priority: 30000}
              routes:
                - {to: default, via: 192.0.2.158, table: 101}
                - {to: "::/0", via: "2001:db8:b::fe", table: 102}
        """,
    "kept-down": """
        network:
          version: 2
          ethernets:
            eth0:
              activation-mode: "off"
              addresses: [192.0.2.161/30]
            eth1: {activation-mode: manual}
        """,
    "vxlan-with-flags": """
        network:
          version: 2
          ethernets:
            eth0: {addresses: [192.0.2.177/28]}
          bridges:
            br7: {interfaces: [vx7]}
          tunnels:
            vx7:
              mode: vxlan
              id: 7
              local: 192.0.2.177
              remote: 192.0.2.178
              port: 4789
              ttl: 9
              mac-learning: false
              neigh-suppress: true
        """,
}
#: Refused, each for the word that its message must have.
REFUSED = {
    "gateway4": (
        "network: {version: 2, ethernets: {eth0: {gateway4: 192.0.2.1}}}",
        "gateway4 is refused",
    ),
    "wifi": ("network: {version: 2, wifis: {wlp3s0: {access-points: {home: {}}}}}", "no wireless"),
    "misspelt": ("network: {version: 2, ethernets: {eth0: {adresses: []}}}", "unknown key"),
    "version-1": ("network: {version: 1, ethernets: {eth0: {}}}", "version is 2"),
    "host-route-with-gateway-elsewhere": (
        "network: {version: 2, ethernets: {eth0: {addresses: [192.0.2.5/24], "
        "routes: [{to: default, via: 198.51.100.1}]}}}",
        "no network of",
    ),
}
