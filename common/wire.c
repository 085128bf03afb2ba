/* SPDX-License-Identifier: MIT */
/*
 * wire.c - encoding and the one place where received bytes are judged.
 *
 * Invariant: what wire_*_decode() accepts is a complete, known message with
 * the right number of descriptors.  Ranges and indices are judged by who
 * acts on them.  System calls are made with syscall(2), because in the
 * preloaded library the libc names may be interposed, by us or others.
 */
#include "wire.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "records are used in place: add byte swapping before porting to big-endian"
#endif

void wire_request_init(struct wire_request *req, enum wire_type type, uint32_t seq)
{
	*req = (struct wire_request){
		.magic = WIRE_MAGIC,
		.version = WIRE_VERSION,
		.type = (uint16_t)type,
		.seq = seq,
	};
}

void wire_reply_init(struct wire_reply *reply, uint16_t type, uint32_t seq)
{
	*reply = (struct wire_reply){
		.magic = WIRE_MAGIC,
		.version = WIRE_VERSION,
		.type = type,
		.seq = seq,
	};
}

static int all_zero(const uint8_t *bytes, size_t len)
{
	while (len--)
		if (*bytes++)
			return 0;
	return 1;
}

static int nr_fds_of(uint16_t type)
{
	switch (type) {
	case WIRE_HELLO:
	case WIRE_ADD:
		return 1;
	case WIRE_REMOVE:
	case WIRE_PING:
	case WIRE_SCAN:
	case WIRE_ATTACH:
	case WIRE_DETACH:
	case WIRE_ATTACHED:
	case WIRE_RESIZE:
	case WIRE_STOP:
	case WIRE_UPGRADE:
	case WIRE_RESIDENT:
	case WIRE_CLIENTS:
		return 0;
	default:
		return -1;
	}
}

/* Fields that a type does not use must be zero, so that they stay usable. */
static int unused_fields_zero(const struct wire_request *req)
{
	bool range = req->type == WIRE_ADD || req->type == WIRE_RESIDENT;

	if ((req->type != WIRE_ADD && req->flags) || (!range && req->offset))
		return 0;
	if (!range && req->type != WIRE_RESIZE && req->length)
		return 0;
	if (req->type != WIRE_REMOVE && req->type != WIRE_ATTACHED && req->type != WIRE_RESIDENT &&
	    req->type != WIRE_CLIENTS && req->index)
		return 0;
	if (req->type != WIRE_HELLO && req->type != WIRE_ATTACH && req->type != WIRE_DETACH &&
	    req->pid)
		return 0;
	return all_zero(req->reserved, sizeof(req->reserved));
}

static enum wire_reason judge_request(const struct wire_request *req, unsigned int nr_fds)
{
	int want_fds = nr_fds_of(req->type);

	if (req->magic != WIRE_MAGIC)
		return WIRE_BAD_MESSAGE;
	if (req->version != WIRE_VERSION)
		return WIRE_BAD_VERSION;
	if (!req->type)
		return WIRE_BAD_MESSAGE;
	/* What a later type means by its fields and descriptors is not known. */
	if (want_fds < 0)
		return WIRE_NO_FEATURE;
	if (!unused_fields_zero(req))
		return WIRE_BAD_MESSAGE;
	if ((req->flags & ~WIRE_ADD_READ_ONLY) != 0)
		return WIRE_BAD_MESSAGE;
	if (nr_fds != (unsigned int)want_fds)
		return WIRE_BAD_FDS;
	return WIRE_OK;
}

int wire_request_decode(const void *buf, size_t len, unsigned int nr_fds,
			struct wire_request *ret_req, enum wire_reason *ret_reason)
{
	*ret_req = (struct wire_request){ 0 };
	if (len != sizeof(*ret_req)) {
		*ret_reason = WIRE_BAD_MESSAGE;
		return -EPROTO;
	}
	memcpy(ret_req, buf, sizeof(*ret_req));
	*ret_reason = judge_request(ret_req, nr_fds);
	if (*ret_reason == WIRE_NO_FEATURE)
		return -EOPNOTSUPP;
	return *ret_reason == WIRE_OK ? 0 : -EPROTO;
}

int wire_reply_decode(const void *buf, size_t len, struct wire_reply *ret_reply)
{
	struct wire_reply reply;

	if (len != sizeof(reply))
		return -EPROTO;
	memcpy(&reply, buf, sizeof(reply));
	if (reply.magic != WIRE_MAGIC || reply.status > 0)
		return -EPROTO;
	if (reply.version != WIRE_VERSION && !reply.status)
		return -EPROTO;
	*ret_reply = reply;
	return 0;
}

int wire_send(int sock, const void *buf, size_t len, int fd_to_pass)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;

	if (fd_to_pass >= 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd_to_pass, sizeof(int));
	}
	if (syscall(SYS_sendmsg, sock, &msg, MSG_NOSIGNAL) < 0)
		return -errno;
	return 0;
}

/* Collect every descriptor of @msg; beyond @max they are closed but counted. */
static unsigned int take_fds(struct msghdr *msg, int *fds, unsigned int max)
{
	unsigned int nr = 0;
	struct cmsghdr *cmsg;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t nr_here = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < nr_here; i++, nr++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
			if (nr < max)
				fds[nr] = fd;
			else
				syscall(SYS_close, fd);
		}
	}
	return nr;
}

/* One record; its control data goes to @control, its descriptors to @fds. */
static long receive(int sock, struct iovec *iov, void *control, size_t control_size, int *fds,
		    unsigned int max, unsigned int *ret_nr, int *ret_cut)
{
	struct msghdr msg = {
		.msg_iov = iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = control_size,
	};
	long len = syscall(SYS_recvmsg, sock, &msg, MSG_CMSG_CLOEXEC | MSG_TRUNC);

	*ret_nr = 0;
	*ret_cut = 0;
	if (len < 0)
		return -errno;
	*ret_nr = take_fds(&msg, fds, max);
	*ret_cut = (msg.msg_flags & MSG_CTRUNC) != 0;
	return len;
}

long wire_recv_all(int sock, void *buf, size_t size, struct wire_fds *ret_fds)
{
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(WIRE_FDS_ROOM * sizeof(int))];
	} control = { 0 };

	return receive(sock, &iov, control.bytes, sizeof(control.bytes), ret_fds->fds,
		       WIRE_FDS_ROOM, &ret_fds->nr, &ret_fds->cut);
}

long wire_recv(int sock, void *buf, size_t size, int fds[WIRE_FDS_MAX], unsigned int *ret_nr_fds)
{
	struct iovec iov = { .iov_base = buf, .iov_len = size };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE((WIRE_FDS_MAX + 1) * sizeof(int))];
	} control = { 0 };
	int cut;
	long len = receive(sock, &iov, control.bytes, sizeof(control.bytes), fds, WIRE_FDS_MAX,
			   ret_nr_fds, &cut);

	if (len < 0)
		return len;
	if (*ret_nr_fds > WIRE_FDS_MAX || cut || !len) {
		for (unsigned int i = 0; i < *ret_nr_fds && i < WIRE_FDS_MAX; i++)
			syscall(SYS_close, fds[i]);
		/* A record of no bytes looks like the end, and has no descriptors. */
		*ret_nr_fds = len ? WIRE_FDS_MAX + 1 : 0;
	}
	return len;
}

static const char *const reason_text[WIRE_REASONS] = {
	[WIRE_OK] = "accepted",
	[WIRE_BAD_MESSAGE] = "the message is malformed",
	[WIRE_BAD_VERSION] = "the two sides speak different protocol versions",
	[WIRE_BAD_FDS] = "the message carries the wrong number of descriptors",
	[WIRE_HELLO_FIRST] = "HELLO must come first, and once",
	[WIRE_NO_ACCESS] = "the descriptor proves no access to the device",
	[WIRE_WRONG_DEVICE] = "the descriptor is open on another device",
	[WIRE_NOT_SEALED] = "the memfd is not sealed against shrinking, growing and unsealing",
	[WIRE_NOT_MEMFD] = "the descriptor is not a memfd",
	[WIRE_BAD_RANGE] = "the range is empty, unaligned, over 4 GiB or beyond the memfd",
	[WIRE_OVER_BUDGET] = "the limit on registered bytes or buffers is reached",
	[WIRE_NO_FEATURE] =
		("the kernel or the device has no shared-memory zero copy, or the server "
		 "does not take such messages"),
	[WIRE_KERNEL_REFUSED] = "the kernel refused to register the buffer",
	[WIRE_NO_SUCH_BUFFER] = "no such buffer of this client",
	[WIRE_BAD_SIZE] =
		"the new size is less than the old, no whole block, or not for this target",
	[WIRE_NO_RESIZE] = "this kernel's ublk driver cannot resize (Linux 6.16 and newer can)",
	[WIRE_NOT_WRITABLE] = "the memfd, or the device, is not open for reading and writing",
	[WIRE_TARGET_REFUSED] = "what is behind the device cannot grow",
	[WIRE_NO_KEEPER] = "its server has no keeper that would start another",
	[WIRE_UPGRADING] = "another upgrade is not over yet",
	[WIRE_PROGRAM_MISSING] = "the installed program cannot be started",
	[WIRE_PROGRAM_FAILS] = "the installed program was tried and does not work",
	[WIRE_OTHER_RECORDS] = "the installed program does not understand this server's records",
	[WIRE_OTHER_STATE] = "the installed program has another version of the state file",
	[WIRE_OTHER_OPTIONS] = "the installed program does not know this server's options",
	[WIRE_PROGRAM_SLOW] = "the installed program was tried and did not answer in time",
	[WIRE_COMMANDS_PENDING] = "the driver has not finished what it was asked to do",
	[WIRE_PROGRAM_DIED] = "the installed program took over and died",
	[WIRE_SERVER_DIED] = "the server died before it could hand over",
	[WIRE_NO_MEMORY] = "the server is out of memory or address space",
	[WIRE_STOPPING] = "the device is being removed",
	[WIRE_NOT_ALLOWED] = "only root and the server's user may",
	[WIRE_NO_PROCESS] = "there is no such process",
	[WIRE_NOT_ATTACHED] = "that process is not attached",
};

const char *wire_reason_text(unsigned int reason)
{
	return reason < WIRE_REASONS ? reason_text[reason] : "unknown reason";
}
