/* SPDX-License-Identifier: MIT */
/*
 * wire.h - the protocol between libublkzc.so and a ublkzc server.
 *
 * Transport: a SOCK_SEQPACKET unix socket, /run/ublkzc/ublkbN.sock.  One
 * message is one fixed-size record (struct wire_request from the client,
 * struct wire_reply from the server) plus the descriptors that its type
 * asks for.  Integers are little-endian.  docs/wire.md is the specification, for other
 * implementations too: what is a number here is a number there, and docs/wire-vectors has
 * messages with their meaning, which the unit tests of both sides read.
 *
 * The connection is the lease: when it ends, however it ends, the server
 * unregisters every buffer that was added through it.
 *
 * Decoding happens once, in wire.c; nobody else looks at received bytes.
 * A decoded message has a known type, the declared size, zero in every
 * reserved field and the number of descriptors that its type takes.
 *
 * Functions here use no heap, no stdio and no interposable libc call, so
 * that both the server and the preloaded library can link them.
 */
#ifndef UBLKZC_COMMON_WIRE_H
#define UBLKZC_COMMON_WIRE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_MAGIC 0x315a4355U /* "UCZ1" in memory order */
#define WIRE_VERSION 1

#define WIRE_DIR "/run/ublkzc"		     /* sockets of this protocol */
#define WIRE_LEGACY_DIR "/run/ublk"	     /* the older one-byte protocol */
#define WIRE_SOCKET_FORMAT "%s/ublkb%u.sock" /* directory, device id */

/* Most descriptors any message carries; a receiver makes room for one more
 * so that it notices, and closes, what it did not ask for. */
#define WIRE_FDS_MAX 1

/* Most descriptors that any record can bring: the kernel's SCM_MAX_FD. */
#define WIRE_FDS_ROOM 253

enum wire_type {
	/*
	 * First message.  One descriptor: the opened device, or an opened
	 * file on a file system on it, as proof of access (not O_PATH).
	 */
	WIRE_HELLO = 1,
	/*
	 * Register a buffer.  One descriptor: a memfd sealed with
	 * SHRINK|GROW|SEAL.  offset and length in bytes, multiples of the page
	 * size, inside the file, at most 4 GiB.  What of it exists is registered
	 * before the reply, and the rest when it does.  The server may answer
	 * after later messages' replies: match by seq.
	 */
	WIRE_ADD = 2,
	/* Unregister the buffer that ADD returned as index.  No descriptor. */
	WIRE_REMOVE = 3,
	/* Answered at once; to see that the server is alive.  No descriptor. */
	WIRE_PING = 4,
	/*
	 * Look (again) at the memory the client itself shares: mappings that
	 * are MAP_SHARED, writable, 1 MiB or more and not of a disk's files.
	 * They are registered, what is gone since the last look is dropped.
	 * No descriptor: the server finds them in /proc.  The reply comes when
	 * all of it is registered or refused: index is the number of buffers,
	 * max_bytes their bytes.
	 */
	WIRE_SCAN = 5,
	/*
	 * For root and the server's own user only, without HELLO and without a
	 * descriptor.  ATTACH: do as for SCAN with process pid and what it
	 * forks, again and again until all have ended.  The reply is that of
	 * SCAN, with processes and refused.  DETACH ends it.  ATTACHED asks for
	 * the attachment number index (0 ...): -ENOENT after the last.
	 */
	WIRE_ATTACH = 6,
	WIRE_DETACH = 7,
	WIRE_ATTACHED = 8,
	/*
	 * As ATTACH, for root.  Let the device grow to length bytes, or (0) to
	 * what is behind it now.  The reply's max_bytes is the device's size,
	 * also when it was refused.
	 */
	WIRE_RESIZE = 9,
	/* As ATTACH, for root: remove the device and end.  The reply says that it begins. */
	WIRE_STOP = 10,
	/*
	 * As ATTACH, for root: hand the device over to the program that is installed now.  The
	 * reply comes from the successor when it has proved itself, or from whoever serves
	 * instead, with the reason.
	 */
	WIRE_UPGRADE = 11,
	/*
	 * A hint, without a descriptor and without a reply, for servers with
	 * WIRE_FEATURE_RESIDENT: more of the buffer that ADD returned as index
	 * has pages now, about length bytes at offset.
	 */
	WIRE_RESIDENT = 12,
	/*
	 * As ATTACH, for root: tell of the client with the least number that is not less than
	 * index, -ENOENT when there is none.  In the reply index is its number, max_buffers and
	 * max_bytes what is registered for it, refused how often it was refused something and
	 * reason why last; and processes is who asks, by the numbers that pid is of.
	 */
	WIRE_CLIENTS = 13,
	WIRE_TYPES /* one more than the last type */
};

/* What a server can, in its reply to HELLO. */
#define WIRE_FEATURE_RESIDENT (1U << 0) /* takes WIRE_RESIDENT */
#define WIRE_FEATURE_DECLINES (1U << 1) /* types that it does not know do it no harm */

/* Flags of WIRE_ADD. */
#define WIRE_ADD_READ_ONLY (1U << 0) /* the device only ever reads from it */

/*
 * Why a request was refused; wire_reason_text() says it in words.  The numbers are docs/wire.md's,
 * so none is ever given away again.  Clients before WIRE_FEATURE_DECLINES end the session for
 * a reason after WIRE_PROGRAM_DIED: newer ones may be told only to who asked for something newer.
 */
enum wire_reason {
	WIRE_OK = 0,
	WIRE_BAD_MESSAGE = 1,	  /* wrong length, magic, type or reserved bytes */
	WIRE_BAD_VERSION = 2,	  /* reply.version says what the server speaks */
	WIRE_BAD_FDS = 3,	  /* more or fewer descriptors than the type takes */
	WIRE_HELLO_FIRST = 4,	  /* anything before HELLO, or HELLO twice */
	WIRE_NO_ACCESS = 5,	  /* the descriptor proves no access to this device */
	WIRE_WRONG_DEVICE = 6,	  /* it is open on some other device */
	WIRE_NOT_SEALED = 7,	  /* memfd lacks SHRINK|GROW|SEAL */
	WIRE_NOT_MEMFD = 8,	  /* not a memfd at all */
	WIRE_BAD_RANGE = 9,	  /* unaligned, empty, too long or beyond the file */
	WIRE_OVER_BUDGET = 10,	  /* bytes or buffers: per client or per device */
	WIRE_NO_FEATURE = 11,	  /* of kernel or device; or the server declines such messages */
	WIRE_KERNEL_REFUSED = 12, /* REG_BUF failed; status holds its error */
	WIRE_NO_SUCH_BUFFER = 13, /* REMOVE of an index this client did not add */
	WIRE_NO_MEMORY = 14,	  /* the server could not map or allocate */
	WIRE_STOPPING = 15,	  /* the device is being removed */
	WIRE_NOT_ALLOWED = 16,	  /* for root and the server's user only */
	WIRE_NO_PROCESS = 17,	  /* there is none with that number */
	WIRE_NOT_ATTACHED = 18,	  /* DETACH of a process that is not attached */
	WIRE_BAD_SIZE = 19,	  /* RESIZE to less, to no whole block, or not of this target */
	WIRE_NO_RESIZE = 20,	  /* this kernel's driver cannot change a device's size */
	WIRE_NOT_WRITABLE = 21,	  /* the memfd is not open for what is asked */
	WIRE_TARGET_REFUSED = 22, /* the storage cannot grow; status holds its error */
	/* UPGRADE.  Of the new program, when it was tried: */
	WIRE_NO_KEEPER = 23,	   /* nobody would start it */
	WIRE_UPGRADING = 24,	   /* another upgrade is not over yet */
	WIRE_PROGRAM_MISSING = 25, /* it cannot be started at all; status holds the error */
	WIRE_PROGRAM_FAILS = 26,   /* it ended without having understood anything */
	WIRE_OTHER_RECORDS = 27,   /* it does not understand the records */
	WIRE_OTHER_STATE = 28,	   /* ... nor the state file */
	WIRE_OTHER_OPTIONS = 29,   /* ... nor the command line */
	WIRE_PROGRAM_SLOW = 30,	   /* it did not answer in time */
	WIRE_COMMANDS_PENDING =
		31,		/* the driver does not answer what it was asked: not handed over */
	WIRE_PROGRAM_DIED = 32, /* it has served, and died; the old program serves again */
	WIRE_SERVER_DIED = 33,	/* the old one, before it could hand over */
	WIRE_REASONS		/* count, not a reason */
};

/* As sent.  64 bytes; every field that a type does not use is zero. */
struct wire_request {
	uint32_t magic;
	uint16_t version;
	uint16_t type;	 /* enum wire_type */
	uint32_t seq;	 /* chosen by the client, repeated in the reply */
	uint32_t flags;	 /* WIRE_ADD_* */
	uint64_t offset; /* ADD, RESIDENT: bytes into the memfd */
	uint64_t length; /* ADD, RESIZE, RESIDENT: bytes */
	uint32_t index;	 /* REMOVE, ATTACHED, RESIDENT, CLIENTS */
	uint32_t pid;	 /* ATTACH, DETACH; HELLO: informative */
	uint8_t reserved[24];
};
static_assert(sizeof(struct wire_request) == 64, "wire format");
static_assert(offsetof(struct wire_request, offset) == 16, "wire format");
static_assert(offsetof(struct wire_request, reserved) == 40, "wire format");

struct wire_reply {
	uint32_t magic;
	uint16_t version; /* the server's own, also when it refuses */
	uint16_t type;	  /* of the request */
	uint32_t seq;
	int32_t status;	 /* 0 or a negative errno */
	uint16_t reason; /* enum wire_reason */
	uint16_t pad;
	uint32_t index;	      /* ADD: what REMOVE calls it; SCAN: how many */
	uint32_t device;      /* HELLO: N of /dev/ublkbN */
	uint32_t max_buffers; /* HELLO: buffers this client may hold */
	uint64_t max_bytes;   /* HELLO: bytes it may register; SCAN: has */
	uint32_t pid;	      /* ATTACHED, CLIENTS */
	uint32_t processes;   /* ATTACH, ATTACHED: followed now; CLIENTS: who asks */
	uint32_t refused;     /* SCAN, ATTACH: mappings or parts not registered; CLIENTS */
	uint32_t features;    /* HELLO: WIRE_FEATURE_* */
	uint32_t user;	      /* CLIENTS: its uid */
	uint8_t reserved[4];
};
static_assert(sizeof(struct wire_reply) == 64, "wire format");
static_assert(offsetof(struct wire_reply, max_bytes) == 32, "wire format");

/* Fill @req with magic, version, @type and @seq, all else zero. */
void wire_request_init(struct wire_request *req, enum wire_type type, uint32_t seq);

/* Fill @reply as the answer to a request of @type and @seq, status 0. */
void wire_reply_init(struct wire_reply *reply, uint16_t type, uint32_t seq);

/*
 * Check @len received bytes at @buf, which came with @nr_fds descriptors, and
 * copy them to @ret_req.  Returns 0, or with the reason in @ret_reason -EPROTO for a malformed
 * message, or -EOPNOTSUPP for one of a later type, which is to be declined; then *@ret_req holds
 * type and seq as far as they arrived (zero otherwise), so that the refusal can be addressed.
 */
int wire_request_decode(const void *buf, size_t len, unsigned int nr_fds,
			struct wire_request *ret_req, enum wire_reason *ret_reason);

/*
 * Likewise for a reply.  Returns 0 or -EPROTO.  Reasons, feature bits and reserved bytes may be
 * newer than we are, and so may be a server that refuses our version.
 */
int wire_reply_decode(const void *buf, size_t len, struct wire_reply *ret_reply);

/*
 * Send @len bytes at @buf as one record, with descriptor @fd_to_pass (-1:
 * none), never raising SIGPIPE.  @sock is used as it is: blocking or not.
 * Returns 0 or a negative errno (-EAGAIN, -EPIPE ...).  @fd_to_pass stays the
 * caller's.
 */
int wire_send(int sock, const void *buf, size_t len, int fd_to_pass);

/*
 * Receive one record of at most @size bytes into @buf and up to
 * WIRE_FDS_MAX descriptors (close-on-exec) into @fds.  Sets *@ret_nr_fds to
 * the number that arrived; when that is more than WIRE_FDS_MAX, or the
 * kernel cut the control data, all are closed already and *@ret_nr_fds is
 * WIRE_FDS_MAX + 1.  Returns the record's true length (which may exceed
 * @size), 0 at end of file, or a negative errno.  Descriptors in @fds are the
 * caller's.
 */
long wire_recv(int sock, void *buf, size_t size, int fds[WIRE_FDS_MAX], unsigned int *ret_nr_fds);

struct wire_fds {
	unsigned int nr;
	int fds[WIRE_FDS_ROOM];
	int cut; /* bool: the kernel had more, and dropped them */
};

/*
 * The same, but every descriptor that came is the caller's, also with an empty record:
 * for whoever must not close a stranger's descriptors here and now.
 */
long wire_recv_all(int sock, void *buf, size_t size, struct wire_fds *ret_fds);

/* A short English clause, "the memfd is not sealed"; never NULL, whatever @reason. */
const char *wire_reason_text(unsigned int reason);

#endif
