/* SPDX-License-Identifier: MIT */
/* fake_server.c - see fake_server.h. */
#undef NDEBUG
#include "fake_server.h"

#include <assert.h>
#include <endian.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS 256
#define BATCH 16
#define TRICKLE 40U /* bytes that come one by one */

enum { READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, NR_COMMANDS };

struct __attribute__((packed)) request {
	uint32_t magic;
	uint16_t flags, type;
	uint64_t cookie, offset;
	uint32_t len;
};

struct __attribute__((packed)) reply {
	uint32_t magic, error;
	uint64_t cookie;
};

/* A command, with the data of a WRITE. */
struct command {
	struct request rq;
	enum fake_trick trick;
	uint8_t *data;
};

static struct {
	pthread_mutex_t lock;
	struct fake_options options;
	struct sockaddr_un address;
	pthread_t accepter, threads[CONNECTIONS];
	int listener, fds[CONNECTIONS];
	unsigned int nr;    /* connections, ever */
	unsigned int first; /* of those, that this life of the server has */
	enum fake_trick trick;
	unsigned int counts[NR_COMMANDS], last_flags;
	uint8_t bytes[FAKE_MAX], stable[FAKE_MAX];
} s = { .lock = PTHREAD_MUTEX_INITIALIZER };

uint32_t fake_error;
static atomic_bool answer;

static bool get(int fd, void *data, size_t len)
{
	return len == 0 || recv(fd, data, len, MSG_WAITALL) == (ssize_t)len;
}

static void put(int fd, const void *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		data = (const char *)data + n;
		len -= (size_t)n;
	}
}

/* ---- the handshake ---- */

static void put_info(int fd, uint32_t type, const void *data, uint32_t len)
{
	struct __attribute__((packed)) {
		uint64_t magic;
		uint32_t option, type, len;
	} reply = { htobe64(0x3e889045565a9), htobe32(7), htobe32(type), htobe32(len) };

	put(fd, &reply, sizeof(reply));
	put(fd, data, len);
}

static void put_export(int fd)
{
	struct __attribute__((packed)) {
		uint16_t type;
		uint64_t size;
		uint16_t flags;
	} export = { 0, htobe64(s.options.size), htobe16((uint16_t)(s.options.flags | 1)) };
	struct __attribute__((packed)) {
		uint16_t type;
		uint32_t minimum, preferred, maximum;
	} blocks = { htobe16(3), htobe32(s.options.minimum), htobe32(s.options.preferred),
		     htobe32(s.options.maximum) };

	put_info(fd, 3, &export, sizeof(export));
	if (s.options.minimum)
		put_info(fd, 3, &blocks, sizeof(blocks));
	put_info(fd, 1, NULL, 0);
}

static bool shake_hands(int fd)
{
	struct __attribute__((packed)) {
		uint64_t magic, option;
		uint16_t flags;
	} hello = { htobe64(0x4e42444d41474943), htobe64(0x49484156454F5054), htobe16(3) };
	struct __attribute__((packed)) {
		uint64_t magic;
		uint32_t option, len;
	} option;
	uint32_t flags;
	char data[4096];

	if (s.options.greeting == FAKE_GIBBERISH)
		hello.magic ^= 1;
	put(fd, &hello, s.options.greeting == FAKE_HANGS_UP ? 11 : sizeof(hello));
	if (s.options.greeting == FAKE_HANGS_UP)
		return false;
	if (!get(fd, &flags, sizeof(flags)))
		return false;
	while (get(fd, &option, sizeof(option)) && be32toh(option.len) <= sizeof(data) &&
	       get(fd, data, be32toh(option.len))) {
		assert(be32toh(option.option) != 8); /* structured replies are not wanted */
		if (be32toh(option.option) == 7) {
			put_export(fd);
			return true;
		}
	}
	return false;
}

/* ---- commands ---- */

static bool get_command(int fd, struct command *c)
{
	if (!get(fd, &c->rq, sizeof(c->rq)))
		return false;
	assert(c->rq.magic == htobe32(0x25609513));
	c->rq.type = be16toh(c->rq.type);
	c->rq.flags = be16toh(c->rq.flags);
	c->rq.offset = be64toh(c->rq.offset);
	c->rq.len = be32toh(c->rq.len);
	assert(c->rq.type < NR_COMMANDS && c->rq.offset + c->rq.len <= FAKE_MAX);
	c->data = malloc(c->rq.len + 1);
	if (c->rq.type == WRITE && !get(fd, c->data, c->rq.len)) {
		free(c->data);
		return false;
	}
	pthread_mutex_lock(&s.lock);
	c->trick = c->rq.type == DISC ? FAKE_NONE : s.trick;
	if (c->rq.type != DISC)
		s.trick = FAKE_NONE;
	s.counts[c->rq.type]++;
	s.last_flags = c->rq.flags;
	pthread_mutex_unlock(&s.lock);
	return true;
}

static void do_command(struct command *c)
{
	uint64_t at = c->rq.offset;

	pthread_mutex_lock(&s.lock);
	if (c->rq.type == READ)
		memcpy(c->data, s.bytes + at, c->rq.len);
	else if (c->rq.type == WRITE)
		memcpy(s.bytes + at, c->data, c->rq.len);
	else if (c->rq.type == WRITE_ZEROES || c->rq.type == TRIM)
		memset(s.bytes + at, 0, c->rq.len);
	if (c->rq.type == FLUSH)
		memcpy(s.stable, s.bytes, sizeof(s.stable));
	else if (c->rq.flags & 1)
		memcpy(s.stable + at, s.bytes + at, c->rq.len);
	pthread_mutex_unlock(&s.lock);
}

static bool hold_back(int fd)
{
	struct pollfd hup = { fd, POLLRDHUP, 0 };

	while (!atomic_load(&answer))
		if (poll(&hup, 1, 10) > 0)
			break;
	if (!atomic_load(&answer))
		usleep(300000); /* late */
	return true;
}

/* A structured reply: its only piece, of a READ's data, says that it is not the last. */
static void put_structured(int fd, const struct command *c)
{
	struct __attribute__((packed)) {
		uint32_t magic;
		uint16_t flags, type;
		uint64_t cookie;
		uint32_t len;
		uint64_t offset;
	} piece = { htobe32(0x668e33ef),  0, htobe16(1), c->rq.cookie, htobe32(8 + c->rq.len),
		    htobe64(c->rq.offset) };

	put(fd, &piece, sizeof(piece));
	put(fd, c->data, c->rq.type == READ ? c->rq.len : 0);
}

static void put_slowly(int fd, const uint8_t *data, size_t len)
{
	size_t slow = len < TRICKLE ? len : TRICKLE;

	for (size_t i = 0; i < slow; i++) {
		put(fd, data + i, 1);
		usleep(2000);
	}
	put(fd, data + slow, len - slow);
}

static void put_reply(int fd, const struct command *c)
{
	struct reply reply = { htobe32(0x67446698), 0, c->rq.cookie };
	size_t len = sizeof(reply), of_data = c->rq.type == READ ? c->rq.len : 0;
	uint8_t *all = malloc(len + of_data);

	if (c->trick == FAKE_ERROR) {
		reply.error = htobe32(fake_error);
		of_data = 0;
	}
	if (c->trick == FAKE_NONSENSE)
		reply.magic = 0x12345678;
	if (c->trick == FAKE_STRANGER)
		reply.cookie ^= 0x5555;
	assert(all);
	memcpy(all, &reply, len);
	memcpy(all + len, c->data, of_data);
	if (c->trick == FAKE_CUT_IN_REPLY)
		len = of_data ? len + of_data / 2 : 7;
	else
		len += of_data;
	if (c->trick == FAKE_TRICKLE)
		put_slowly(fd, all, len);
	else
		put(fd, all, len);
	if (c->trick == FAKE_TWICE)
		put(fd, all, len);
	free(all);
}

/* False: the connection is to end. */
static bool answer_command(int fd, struct command *c)
{
	if (c->trick == FAKE_CUT_BEFORE)
		return false;
	if (c->trick == FAKE_SILENT)
		hold_back(fd);
	if (c->trick != FAKE_ERROR)
		do_command(c);
	if (c->trick == FAKE_CUT_AFTER)
		return false;
	if (c->trick == FAKE_STRUCTURED)
		put_structured(fd, c);
	else
		put_reply(fd, c);
	return c->trick != FAKE_CUT_IN_REPLY;
}

static bool more(int fd, unsigned int nr)
{
	struct pollfd in = { fd, POLLIN, 0 };

	return s.options.backwards && nr < BATCH && poll(&in, 1, 50) > 0;
}

static bool serve_some(int fd)
{
	struct command batch[BATCH];
	unsigned int nr = 0;
	bool on;

	do {
		on = get_command(fd, &batch[nr]);
		if (on && batch[nr].rq.type == DISC) {
			free(batch[nr].data);
			on = false;
		}
	} while (on && more(fd, ++nr));
	while (nr--) {
		on &= answer_command(fd, &batch[nr]);
		free(batch[nr].data);
	}
	return on;
}

static void *serve(void *arg)
{
	unsigned int i = (unsigned int)(uintptr_t)arg;

	if (shake_hands(s.fds[i]))
		while (serve_some(s.fds[i]))
			;
	shutdown(s.fds[i], SHUT_RDWR);
	return NULL;
}

/* ---- the server ---- */

static void *accept_all(void *arg)
{
	int fd;

	while ((fd = accept(s.listener, NULL, NULL)) >= 0) {
		pthread_mutex_lock(&s.lock);
		assert(s.nr < CONNECTIONS);
		s.fds[s.nr] = fd;
		pthread_create(&s.threads[s.nr], NULL, serve, (void *)(uintptr_t)s.nr);
		s.nr++;
		pthread_mutex_unlock(&s.lock);
	}
	return arg;
}

void fake_restart(const struct fake_options *options)
{
	s.options = *options;
	unlink(s.address.sun_path);
	s.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(bind(s.listener, (struct sockaddr *)&s.address, sizeof(s.address)) == 0);
	assert(listen(s.listener, 64) == 0);
	assert(pthread_create(&s.accepter, NULL, accept_all, NULL) == 0);
}

void fake_start(const char *path, const struct fake_options *options)
{
	s.address.sun_family = AF_UNIX;
	strncpy(s.address.sun_path, path, sizeof(s.address.sun_path) - 1);
	s.nr = s.first = 0;
	s.trick = FAKE_NONE;
	atomic_store(&answer, false);
	memset(s.counts, 0, sizeof(s.counts));
	memset(s.bytes, 0, sizeof(s.bytes));
	memset(s.stable, 0, sizeof(s.stable));
	fake_restart(options);
}

void fake_stop(bool power_cut)
{
	shutdown(s.listener, SHUT_RDWR);
	pthread_join(s.accepter, NULL);
	close(s.listener);
	unlink(s.address.sun_path);
	for (unsigned int i = s.first; i < s.nr; i++)
		shutdown(s.fds[i], SHUT_RDWR);
	for (unsigned int i = s.first; i < s.nr; i++) {
		pthread_join(s.threads[i], NULL);
		close(s.fds[i]);
	}
	s.first = s.nr;
	if (power_cut)
		memcpy(s.bytes, s.stable, sizeof(s.bytes));
}

void fake_trick(enum fake_trick trick)
{
	pthread_mutex_lock(&s.lock);
	s.trick = trick;
	pthread_mutex_unlock(&s.lock);
}

void fake_answer(void)
{
	atomic_store(&answer, true);
}

static unsigned int locked(const unsigned int *value)
{
	unsigned int n;

	pthread_mutex_lock(&s.lock);
	n = *value;
	pthread_mutex_unlock(&s.lock);
	return n;
}

unsigned int fake_count(unsigned int command)
{
	return locked(&s.counts[command]);
}

unsigned int fake_connections(void)
{
	return locked(&s.nr);
}

unsigned int fake_last_flags(void)
{
	return locked(&s.last_flags);
}

const uint8_t *fake_bytes(void)
{
	return s.bytes;
}
