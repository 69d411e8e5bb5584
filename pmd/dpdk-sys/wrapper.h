/*
 * What bindgen reads, and what the C half of this crate is compiled from.
 *
 * The constants below exist because their DPDK names are function-like macros (RTE_BIT64) or offsets, which bindgen cannot
 * evaluate, and because struct rte_mbuf's unions are named differently from release to release: an offset is not.
 * The shim_* functions exist for what is a macro or changes its shape between releases.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <rte_config.h>
#include <rte_alarm.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

enum shim_mbuf_offset {
	SHIM_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	SHIM_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	SHIM_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	SHIM_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	SHIM_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	SHIM_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	SHIM_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	SHIM_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload),
};

/* Bit positions inside rte_mbuf.tx_offload: l2_len, l3_len, l4_len, tso_segsz, from the lowest bit on. */
enum shim_tx_offload_shift {
	SHIM_TX_L3_LEN_SHIFT = RTE_MBUF_L2_LEN_BITS,
	SHIM_TX_L4_LEN_SHIFT = RTE_MBUF_L2_LEN_BITS + RTE_MBUF_L3_LEN_BITS,
	SHIM_TX_TSO_SEGSZ_SHIFT = RTE_MBUF_L2_LEN_BITS + RTE_MBUF_L3_LEN_BITS + RTE_MBUF_L4_LEN_BITS,
};

static const uint64_t SHIM_RX_IP_CKSUM_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t SHIM_RX_IP_CKSUM_BAD = RTE_MBUF_F_RX_IP_CKSUM_BAD;
static const uint64_t SHIM_RX_IP_CKSUM_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t SHIM_RX_IP_CKSUM_NONE = RTE_MBUF_F_RX_IP_CKSUM_NONE;
static const uint64_t SHIM_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t SHIM_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t SHIM_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t SHIM_RX_L4_CKSUM_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;
static const uint64_t SHIM_TX_TCP_CKSUM = RTE_MBUF_F_TX_TCP_CKSUM;
static const uint64_t SHIM_TX_TCP_SEG = RTE_MBUF_F_TX_TCP_SEG;
static const uint64_t SHIM_TX_IP_CKSUM = RTE_MBUF_F_TX_IP_CKSUM;
static const uint64_t SHIM_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t SHIM_TX_IPV6 = RTE_MBUF_F_TX_IPV6;
static const uint64_t SHIM_MBUF_ATTACHED = RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL;

static const uint64_t SHIM_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SHIM_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t SHIM_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t SHIM_RX_OFFLOAD_TCP_LRO = RTE_ETH_RX_OFFLOAD_TCP_LRO;
static const uint64_t SHIM_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t SHIM_TX_OFFLOAD_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SHIM_TX_OFFLOAD_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t SHIM_TX_OFFLOAD_TCP_TSO = RTE_ETH_TX_OFFLOAD_TCP_TSO;
static const uint64_t SHIM_RSS_IP = RTE_ETH_RSS_IP;
static const uint64_t SHIM_RSS_TCP = RTE_ETH_RSS_TCP;
static const uint64_t SHIM_RSS_UDP = RTE_ETH_RSS_UDP;

static const uint32_t SHIM_LCORE_ID_ANY = LCORE_ID_ANY;
static const uint32_t SHIM_PKTMBUF_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const uint32_t SHIM_MEMPOOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE;

/* errno of this thread's last failed DPDK call: a per-thread macro. */
static inline int
shim_errno(void)
{
	return rte_errno;
}

/* struct rte_eth_link is a struct of bit fields, and since 24.11 a union. */
static inline int
shim_link(uint16_t port, uint8_t *up, uint32_t *mbps)
{
	struct rte_eth_link link;
	int rc;

	memset(&link, 0, sizeof(link));
	rc = rte_eth_link_get_nowait(port, &link);
	*up = link.link_status == RTE_ETH_LINK_UP;
	*mbps = link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : link.link_speed;
	return rc;
}

static inline int
shim_mac(uint16_t port, uint8_t mac[6])
{
	struct rte_ether_addr address;
	int rc;

	memset(&address, 0, sizeof(address));
	rc = rte_eth_macaddr_get(port, &address);
	memcpy(mac, &address, 6);
	return rc;
}

static inline int
shim_set_mac(uint16_t port, const uint8_t mac[6])
{
	struct rte_ether_addr address;

	memcpy(&address, mac, 6);
	return rte_eth_dev_default_mac_addr_set(port, &address);
}

/* A rule that puts packets to an address, four or sixteen bytes of it by the IP version `family`, into a receive queue. */
static inline int
shim_flow_to_queue(uint16_t port, uint32_t priority, uint8_t family, const uint8_t address[16], uint16_t queue)
{
	struct rte_flow_attr attr = { .priority = priority, .ingress = 1 };
	struct rte_flow_item_ipv4 v4, v4_mask;
	struct rte_flow_item_ipv6 v6, v6_mask;
	struct rte_flow_item pattern[3];
	struct rte_flow_action_queue to = { .index = queue };
	struct rte_flow_action actions[2];
	struct rte_flow_error error;

	memset(&v4, 0, sizeof(v4));
	memset(&v4_mask, 0, sizeof(v4_mask));
	memset(&v6, 0, sizeof(v6));
	memset(&v6_mask, 0, sizeof(v6_mask));
	memset(pattern, 0, sizeof(pattern));
	memset(actions, 0, sizeof(actions));
	memset(&error, 0, sizeof(error));
	pattern[0].type = RTE_FLOW_ITEM_TYPE_ETH;
	if (family == 4) {
		memcpy(&v4.hdr.dst_addr, address, 4);
		memset(&v4_mask.hdr.dst_addr, 0xff, 4);
		pattern[1].type = RTE_FLOW_ITEM_TYPE_IPV4;
		pattern[1].spec = &v4;
		pattern[1].mask = &v4_mask;
	} else {
		memcpy(&v6.hdr.dst_addr, address, 16);
		memset(&v6_mask.hdr.dst_addr, 0xff, 16);
		pattern[1].type = RTE_FLOW_ITEM_TYPE_IPV6;
		pattern[1].spec = &v6;
		pattern[1].mask = &v6_mask;
	}
	pattern[2].type = RTE_FLOW_ITEM_TYPE_END;
	actions[0].type = RTE_FLOW_ACTION_TYPE_QUEUE;
	actions[0].conf = &to;
	actions[1].type = RTE_FLOW_ACTION_TYPE_END;
	if (rte_flow_create(port, &attr, pattern, actions, &error) != NULL)
		return 0;
	return rte_errno != 0 ? -rte_errno : -EINVAL;
}

/* Takes all rules away. */
static inline int
shim_flow_flush(uint16_t port)
{
	struct rte_flow_error error;

	memset(&error, 0, sizeof(error));
	return rte_flow_flush(port, &error);
}

/* Sends DPDK's log lines to `write` instead of the console; returns 0, or -1 where there is no memory. */
static inline int
shim_log_to(ssize_t (*write)(void *cookie, const char *text, size_t len))
{
	cookie_io_functions_t functions = { .write = write };
	FILE *stream = fopencookie(NULL, "w", functions);

	if (stream == NULL)
		return -1;
	setvbuf(stream, NULL, _IOLBF, 1024);
	return rte_openlog_stream(stream);
}
