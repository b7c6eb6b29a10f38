// Receives events: verifies the signature, answers at once, works afterwards; Java 17 or newer, no library: java Webhook.java.

import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.util.Base64;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Webhook {
    static final long TOLERANCE_S = 300;

    /** Tells whether Vultus signed these bytes within the last minutes; while a secret is rotated there are two signatures. */
    static boolean isSigned(byte[] secret, Headers headers, byte[] body) throws GeneralSecurityException {
        String id = headers.getFirst("webhook-id"), time = headers.getFirst("webhook-timestamp"), signatures = headers.getFirst("webhook-signature");
        if (id == null || time == null || !time.matches("\\d{1,12}") || signatures == null) return false;
        if (Math.abs(Instant.now().getEpochSecond() - Long.parseLong(time)) > TOLERANCE_S) return false;
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(secret, "HmacSHA256"));
        mac.update((id + "." + time + ".").getBytes(StandardCharsets.UTF_8));
        byte[] expected = ("v1," + Base64.getEncoder().encodeToString(mac.doFinal(body))).getBytes(StandardCharsets.UTF_8);
        for (String signature : signatures.split(" ")) {
            if (MessageDigest.isEqual(expected, signature.getBytes(StandardCharsets.UTF_8))) return true;
        }
        return false;
    }

    public static void main(String[] arguments) throws Exception {
        byte[] secret = Base64.getDecoder().decode(System.getenv("WEBHOOK_SECRET").replaceFirst("^whsec_", ""));
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "9000"));
        Set<String> seen = ConcurrentHashMap.newKeySet(); // in a program of yours: in the database, with what the event caused
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/", exchange -> {
            byte[] body = exchange.getRequestBody().readAllBytes(); // as it came, before any parser
            boolean isOurs = false;
            try {
                isOurs = isSigned(secret, exchange.getRequestHeaders(), body);
            } catch (GeneralSecurityException impossible) {
                impossible.printStackTrace();
            }
            exchange.sendResponseHeaders(isOurs ? 204 : 400, -1);
            exchange.close();
            if (isOurs && seen.add(exchange.getRequestHeaders().getFirst("webhook-id"))) { // an event may come more than once
                System.out.println(new String(body, StandardCharsets.UTF_8));
            }
        });
        server.start();
    }
}
