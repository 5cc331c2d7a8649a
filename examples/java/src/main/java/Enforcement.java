// An enforcement service in Java: acts on violations alone, once per verdict id, however often one is delivered.
//
//   mvn --quiet compile exec:java -Dexec.args="HOST:PORT stream-guard.verdicts enforcement enforcement.sqlite"
//
// The arguments are the broker, the topic of verdicts, the consumer group and the database; all but the broker can be left
// out. The action and the verdict's id are written in one SQLite transaction, so after a crash either both exist or
// neither. Replace act() with your platform's action. If that is a call over the network, pass the verdict's id as its
// idempotency key.
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public final class Enforcement {
  /** The decisions that this service acts on. An undetermined verdict is for people, and not among them. */
  private static final Set<String> DECISIONS = Set.of("violates");

  private static final ObjectMapper JSON = new ObjectMapper();

  private final Connection database;
  private final PreparedStatement remember;
  private final PreparedStatement write;

  private Enforcement(String path) throws SQLException {
    database = DriverManager.getConnection("jdbc:sqlite:" + path);
    try (Statement statement = database.createStatement()) {
      statement.execute("PRAGMA journal_mode = WAL");
      statement.execute("PRAGMA synchronous = FULL");
      statement.execute("CREATE TABLE IF NOT EXISTS handled (verdict_id TEXT PRIMARY KEY) WITHOUT ROWID");
      statement.execute(
          "CREATE TABLE IF NOT EXISTS actions (verdict_id TEXT, content_id TEXT, policy TEXT, action TEXT)");
    }
    database.setAutoCommit(false);
    remember = database.prepareStatement("INSERT OR IGNORE INTO handled VALUES (?)");
    write = database.prepareStatement("INSERT INTO actions VALUES (?, ?, ?, ?)");
  }

  /** Take down, label, warn ... here: write down what would be done. */
  private void act(JsonNode verdict) throws SQLException {
    write.setString(1, verdict.get("id").asText());
    write.setString(2, verdict.get("content").get("id").asText());
    write.setString(3, verdict.get("policy").get("id").asText());
    write.setString(4, verdict.get("action").asText());
    write.executeUpdate();
  }

  /** Act on a violation unless that was done before; return whether anything was done. */
  private boolean handle(JsonNode verdict) throws SQLException {
    if (!DECISIONS.contains(verdict.get("decision").asText())) {
      return false;
    }
    if (verdict.get("action").asText().equals("none")) {
      return false;
    }
    try {
      remember.setString(1, verdict.get("id").asText());
      boolean isNew = remember.executeUpdate() == 1;
      if (isNew) {
        act(verdict);
      }
      database.commit();
      return isNew;
    } catch (SQLException | RuntimeException error) {
      database.rollback();
      throw error;
    }
  }

  /** Return the verdict in a record's value, in either mode of CloudEvents. */
  private static JsonNode read(byte[] value) throws IOException {
    JsonNode document = JSON.readTree(value);
    JsonNode verdict = document.has("specversion") ? document.get("data") : document;
    String version = verdict.get("schema_version").asText();
    // A later minor version only adds fields.
    if (!version.startsWith("1.")) {
      throw new IOException("schema version " + version + ": update this service");
    }
    return verdict;
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length < 1 || arguments.length > 4) {
      System.err.println("name the broker: HOST:PORT [TOPIC [GROUP [DATABASE]]]");
      System.exit(2);
    }
    String topic = arguments.length > 1 ? arguments[1] : "stream-guard.verdicts";
    String group = arguments.length > 2 ? arguments[2] : "enforcement";
    Enforcement service = new Enforcement(arguments.length > 3 ? arguments[3] : "enforcement.sqlite");
    Map<String, Object> settings =
        Map.of(
            ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
            ConsumerConfig.GROUP_ID_CONFIG, group,
            ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
            // With delivery.mode = "exactly_once", a verdict counts when its transaction has been committed.
            ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed",
            ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
    KafkaConsumer<byte[], byte[]> consumer =
        new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    Thread main = Thread.currentThread();
    Runtime.getRuntime()
        .addShutdownHook(
            new Thread(
                () -> {
                  consumer.wakeup();
                  try {
                    main.join(10_000);
                  } catch (InterruptedException stopped) {
                    Thread.currentThread().interrupt();
                  }
                }));
    try (consumer) {
      consumer.subscribe(List.of(topic));
      while (true) {
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
          if (record.value() == null) {
            continue;
          }
          JsonNode verdict = read(record.value());
          if (service.handle(verdict)) {
            System.out.println(verdict.get("action").asText() + " " + verdict.get("content").get("id").asText());
          }
        }
        // Committed after every verdict of the poll is handled, so a crash repeats verdicts and loses none.
        consumer.commitSync();
      }
    } catch (WakeupException stopped) {
      service.database.close();
    }
  }
}
