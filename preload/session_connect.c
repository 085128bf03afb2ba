/* SPDX-License-Identifier: MIT */
/*
 * session_connect.c - the connection of a session: made, access proved, answers read, lost.
 *
 * The socket is checked before each use, because programs close descriptors that they do
 * not know; then the session is lost, and made anew at the next open.
 */
#include "session_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/log.h"
#include "common/wire.h"
#include "config.h"
#include "legacy.h"
#include "stats.h"
#include "sys.h"
#include "talk.h"

static atomic_uint nr_live;

bool session_armed(void)
{
	return atomic_load_explicit(&nr_live, memory_order_relaxed) != 0;
}

void session_none_live(void)
{
	nr_live = 0;
}

void session_lose(struct session *s)
{
	if (!s->live)
		return;
	s->live = false;
	s->retry_at = 0;
	memset(s->sent, 0, sizeof(s->sent));
	atomic_fetch_sub(&nr_live, 1);
	stat_add(STAT_SESSION_LOST, 1);
	if (!s->legacy && sys_fd_is(s->fd, s->dev, s->ino))
		sys_close(s->fd);
}

static void note_hello(struct session *s, const struct wire_reply *reply)
{
	s->hello_seq = 0;
	s->hints = (reply->features & WIRE_FEATURE_RESIDENT) != 0;
	if (!reply->status)
		return;
	stat_add(STAT_REFUSED, 1);
	stats_last_refusal(reply->reason);
	log_line(LOG_INFO, "/dev/ublkb%u: the server refused us: %s", s->device,
		 wire_reason_text(reply->reason));
	session_lose(s);
	s->retry_at = sys_now_ms() + SESSION_RETRY_MS;
}

void session_note_reply(struct session *s, const struct wire_reply *reply)
{
	bool again = false;

	if (s->late)
		stat_add(STAT_LATE, 1);
	s->late = false;
	if (reply->type == WIRE_HELLO && reply->seq == s->hello_seq)
		note_hello(s, reply);
	if (reply->type == WIRE_SCAN && reply->seq == s->scan_seq)
		s->scan_seq = 0;
	if (reply->type == WIRE_SCAN && reply->status == -EOPNOTSUPP)
		s->no_scans = true;
	if (reply->type != WIRE_ADD)
		return;
	for (unsigned int i = 0; i < ARENAS_MAX; i++)
		if (s->sent[i].id && s->sent[i].seq == reply->seq) {
			s->sent[i].index = reply->status ? INDEX_NONE : (int)reply->index;
			again = s->sent[i].again;
		}
	if (!again)
		stat_add(reply->status ? STAT_ARENAS_REFUSED : STAT_ARENAS_SENT, 1);
	if (reply->status) {
		stats_last_refusal(reply->reason);
		log_line(LOG_INFO, "an arena was refused: %s", wire_reason_text(reply->reason));
	}
}

/* Answers that have come by now; never waits. */
static void drain(struct session *s)
{
	struct wire_reply reply;
	int ret = -ETIMEDOUT;

	while (s->live && (ret = talk_read_reply(s->fd, 0, &reply)) == 0)
		session_note_reply(s, &reply);
	if (ret != -ETIMEDOUT)
		session_lose(s);
}

bool session_usable(struct session *s)
{
	if (!s->live)
		return false;
	if (s->legacy)
		return true;
	if (!sys_fd_is(s->fd, s->dev, s->ino))
		session_lose(s);
	else
		drain(s);
	return s->live;
}

/*
 * A server that does not answer in time is taken at its word later: what is sent
 * behind the HELLO it looks at in that order, so if it accepts us all is registered
 * by then, and if not, nothing was.
 */
static int say_hello(struct session *s, int proof, long long deadline)
{
	struct wire_request req;
	struct wire_reply reply;
	int ret;

	wire_request_init(&req, WIRE_HELLO, ++s->seq);
	req.pid = (uint32_t)sys_getpid();
	s->hello_seq = req.seq;
	ret = wire_send(s->fd, &req, sizeof(req), proof);
	if (!ret)
		ret = talk_read_reply(s->fd, deadline, &reply);
	if (ret == -ETIMEDOUT) {
		stat_add(STAT_DEADLINE, 1);
		s->late = true;
		return 0;
	}
	if (ret || reply.type != WIRE_HELLO) {
		stat_add(STAT_REFUSED, 1);
		return ret ? ret : -EPROTO;
	}
	note_hello(s, &reply);
	return reply.status;
}

static int greet(struct session *s, int proof, long long deadline)
{
	struct stat st;
	int ret = sys_fstat(s->fd, &st);

	s->late = false;
	if (ret == 0)
		ret = say_hello(s, proof, deadline);
	if (ret) {
		sys_close(s->fd);
		return ret;
	}
	s->dev = st.st_dev;
	s->ino = st.st_ino;
	return 0;
}

void session_establish(struct session *s, int proof)
{
	long long now = sys_now_ms();
	long long deadline = now + (long long)config.connect_ms;

	if (now < s->retry_at)
		return;
	s->retry_at = now + SESSION_RETRY_MS;
	s->fd = talk_connect(config.socket_dir, s->device, SOCK_SEQPACKET, deadline);
	if (s->fd == -EAGAIN) {
		stat_add(STAT_DEADLINE, 1);
		return;
	}
	s->legacy = s->fd < 0 && legacy_there(s->device);
	if (s->fd < 0 && !s->legacy) {
		stats_no_server(s->device);
		log_line(LOG_INFO, "/dev/ublkb%u: no server at %s: error %d", s->device,
			 config.socket_dir, s->fd);
		return;
	}
	if (!s->legacy && greet(s, proof, deadline))
		return;
	s->live = true;
	s->late = s->late && !s->legacy;
	s->scan_seq = s->scanned = 0;
	s->no_scans = false;
	memset(s->sent, 0, sizeof(s->sent));
	atomic_fetch_add(&nr_live, 1);
	stat_add(STAT_ARMED, 1);
	if (s->legacy)
		stat_add(STAT_LEGACY, 1);
}
